"""Measures a training step, the loader, phase 1 and DDP on one NVIDIA GPU, against what the GPU itself can do.

    bash experiments/benchmarks/gpu.sh [OUT]

All times are wall times, with the device synchronised before and after. Without a GPU there are no rows, except with
--smoke, which runs everything on the CPU at tiny sizes. The floor of a step is the larger of two times: that of its
floating-point operations at the GPU's rate for matrix products, and that of moving the bytes of its unfused operations
at the GPU's bandwidth.
"""

import argparse
import copy
import os
import socket
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu_fit import fit
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from paired import Row, main, markdown, row
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from riskft.data.patches.batch import PatchBatch
from riskft.losses.refresh import RefreshedLoss
from riskft.losses.weighted import Loss, RiskWeightedLoss
from riskft.source.source import Source
from riskft.training.module import RiskModule

CLASSES = ["background", "one", "two", "three"]


@dataclass(frozen=True)
class Sizes:
    """The sizes of everything that is measured."""

    device: torch.device
    patch: int
    channels: tuple[int, ...]
    rounds: int
    matrix: int  # edge of the matrices whose product is timed
    copied: int  # bytes that are copied to time the bandwidth
    volume: int  # edge of the volumes of phase 1 and of the loader


SMOKE = Sizes(torch.device("cpu"), 16, (4, 8), 1, 64, 2**20, 24)


def card() -> Sizes:
    """Returns the sizes for the first GPU."""
    return Sizes(torch.device("cuda"), 128, (32, 64, 128, 256, 320), 15, 8192, 2**30, 160)


def milliseconds(function: Callable[[], object], device: torch.device) -> float:
    """Returns the wall time of one call, with the device synchronised before and after."""
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return 1000 * (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def in_turn(
    what: str,
    against: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    sizes: Sizes,
    aim: float | None = None,
) -> Row:
    """Times both alternately, after two calls of each that do not count."""
    for _ in range(2):
        ours()
        peer()
    times = [(milliseconds(ours, sizes.device), milliseconds(peer, sizes.device)) for _ in range(sizes.rounds)]
    return row(what, against, "ms", [one for one, _ in times], [other for _, other in times], aim)


class Bytes(TorchDispatchMode):
    """Adds up the bytes that the computing operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
                if isinstance(value, torch.Tensor):
                    self.total += value.numel() * value.element_size()
        return result


class Step:
    """A training step of riskft: network, loss, backward pass and AdamW, in bf16."""

    def __init__(self, sizes: Sizes, loss: Loss, risk: bool, channels_last: bool = True) -> None:
        torch.manual_seed(0)
        network = UNet(3, 1, len(CLASSES), sizes.channels, (2,) * (len(sizes.channels) - 1), num_res_units=2)
        inferer = SlidingWindowInferer([sizes.patch] * 3)
        made = RiskModule(Source(network, None), CLASSES, 1, loss=loss, inferer=inferer, channels_last=channels_last)
        loss.runs_for(1000)
        self.module = made.to(sizes.device).train()
        if channels_last:
            self.module.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.module.log = lambda *_, **__: None  # type: ignore[method-assign]
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4)
        shape = 2, 1, *[sizes.patch] * 3
        label = torch.randint(0, len(CLASSES), shape, device=sizes.device).to(torch.uint8)
        weight = torch.rand(shape, device=sizes.device) + 0.5 if risk else None
        image = torch.randn(shape, device=sizes.device)
        self.batch = PatchBatch(("a", "b"), image, label, torch.full((2,), 0.2, device=sizes.device), weight)
        self.device = sizes.device

    def __call__(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.module.training_step(self.batch, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def refreshed() -> Loss:
    return RefreshedLoss(RiskWeightedLoss(), start=0, every=50)


def floors(sizes: Sizes) -> tuple[float, float]:
    """Returns the GPU's floating-point operations (bf16) per ms, and its bytes per ms."""
    half = torch.randn(sizes.matrix, sizes.matrix, device=sizes.device, dtype=torch.bfloat16)
    held = torch.empty(sizes.copied, dtype=torch.uint8, device=sizes.device)
    other = torch.empty_like(held)
    calls = (lambda: half @ half), (lambda: other.copy_(held))
    for call in calls:
        call()
    product, copy_ = (statistics.median(milliseconds(call, sizes.device) for _ in range(10)) for call in calls)
    return 2 * sizes.matrix**3 / product, 2 * sizes.copied / copy_


def steps(sizes: Sizes) -> Iterator[Row]:
    """Yields the rows of the training step."""
    plain, risk = Step(sizes, RiskWeightedLoss(), risk=False), Step(sizes, RiskWeightedLoss(), risk=True)
    fresh, strided = Step(sizes, refreshed(), risk=True), Step(sizes, RiskWeightedLoss(), False, channels_last=False)
    plain()
    with FlopCounterMode(display=False) as operations:
        plain()
    with Bytes() as moved:
        plain()
    rate, bandwidth = floors(sizes)
    floor = max(operations.get_total_flops() / rate, moved.total / bandwidth)
    said = (
        f"its floor: {operations.get_total_flops() / 1e12:.2f} TFLOP at {rate / 1e9:.0f} TFLOP/s, "
        f"{moved.total / 1e9:.1f} GB at {bandwidth / 1e9:.2f} TB/s"
    )
    times = [milliseconds(plain, sizes.device) for _ in range(max(2, sizes.rounds))]
    yield row("a step, plain, bf16, channels-last", said, "ms", times, [floor] * len(times))
    yield in_turn("a step, channels-last", "channels first", plain, strided, sizes)
    yield in_turn("a step with risk", "plain", risk, plain, sizes, aim=1.02)
    yield in_turn("a step with risk, refreshed", "plain", fresh, plain, sizes, aim=1.02)
    if sizes.device.type == "cuda":
        count = waits(fresh)
        yield Row("a step with risk, refreshed: waits for the card", "one", "", count, 1, count, count, count, 0)
    compiled = [copy.deepcopy(one) for one in (plain, risk, fresh)]
    for one in compiled:
        one.module.network.compile(backend="inductor" if sizes.device.type == "cuda" else "eager")
    yield in_turn("a step, compiled", "not compiled", compiled[0], plain, sizes)
    yield in_turn("a step with risk, compiled", "plain, compiled", compiled[1], compiled[0], sizes, aim=1.02)
    yield in_turn("a step with risk, refreshed, compiled", "plain, compiled", compiled[2], compiled[0], sizes, aim=1.02)


def waits(step: Step) -> int:
    """Returns how often a step makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in found)


def parallel(sizes: Sizes) -> Iterator[Row]:
    """Yields the row of DDP with one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(probe.getsockname()[1]))
    cuda = sizes.device.type == "cuda"
    dist.init_process_group("nccl" if cuda else "gloo", rank=0, world_size=1)
    try:
        plain, shared = Step(sizes, refreshed(), risk=True), Step(sizes, refreshed(), risk=True)
        shared.module.network = DistributedDataParallel(shared.module.network, gradient_as_bucket_view=True)
        yield in_turn(f"a step by DDP, {'NCCL' if cuda else 'gloo'}, one process", "without DDP", shared, plain, sizes)
        for one in (plain, shared):
            one.module.loss.settle()  # all processes sum their counts
    finally:
        dist.destroy_process_group()


def rows(options: argparse.Namespace) -> Iterator[Row]:
    if not (options.smoke or torch.cuda.is_available()):
        print("no CUDA device: no rows")
        return
    sizes = SMOKE if options.smoke else card()
    torch.backends.cudnn.benchmark = True  # as in configs/trainer/gpu.yaml
    name = torch.cuda.get_device_name() if sizes.device.type == "cuda" else "CPU"
    found: list[Row] = []
    for part in (steps, parallel):
        for one in part(sizes):
            found.append(one)
            yield one
    with tempfile.TemporaryDirectory() as folder:
        for one in fit(Path(folder), sizes.device, sizes.volume, sizes.patch, sizes.channels):
            found.append(one)
            yield one
    options.out.mkdir(parents=True, exist_ok=True)
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    (options.out / "gpu.md").write_text(f"{name}, {versions}\n\n{markdown(found)}\n")


if __name__ == "__main__":
    main("gpu", rows)
