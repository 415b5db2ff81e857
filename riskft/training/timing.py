"""Measures the time of one training batch before training starts."""

import copy
import time

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from riskft.data.datamodule import RiskDataModule
from riskft.data.patches.queue import PatchLoader
from riskft.source.reading import tensors_in
from riskft.training.module import RiskModule


def time_batch(trainer: Trainer, module: RiskModule, data: RiskDataModule) -> float | None:
    """Returns the time of a training batch in s, or None if the trainer has no ``PatchLoader``.

    The time covers loading, augmenting and cropping, and a forward and a backward pass of a copy of the network, but
    neither loss nor optimizer. The state of the run and of its random generators does not change.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, PatchLoader):
        return None
    with isolate_rng():
        start = time.perf_counter()
        patches = loader.source[next(loader.visits())]
        load = (time.perf_counter() - start) * data.batch_size / len(patches.image)
        compute = _time_passes(trainer, module, data)
    # worker processes load while this one trains
    return max(load / data.num_workers, compute) if data.num_workers else load + compute


def _time_passes(trainer: Trainer, module: RiskModule, data: RiskDataModule) -> float:
    network = copy.deepcopy(module.network).train()
    shape = (data.batch_size, module.in_channels, *data.patch_size)
    batch = torch.rand(shape, device=module.device)
    seconds = 0.0
    # on a GPU the first pass also chooses algorithms
    for _ in range(1 if module.device.type == "cpu" else 2):
        start = _now(module.device)
        with torch.enable_grad(), trainer.precision_plugin.train_step_context():
            outputs = tensors_in(network(batch)).values()
            loss = torch.stack([output.float().mean() for output in outputs if output.requires_grad]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = _now(module.device) - start
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_words(seconds: float) -> str:
    """Returns a duration in a readable form: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
