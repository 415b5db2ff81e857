"""Measures the weighted loss against MONAI's DiceCELoss, RefreshedLoss against the loss inside it, and a training step.

    python experiments/benchmarks/losses.py [--out FOLDER] [--smoke]

Each loss is called and differentiated on a batch (2, 4, 96, 96, 96). riskft's has a risk map and ignored voxels,
MONAI's has neither. The step is that of the U-Net of configs/model/unet.yaml with AdamW on a batch (2, 1, 64, 64, 64).
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from paired import Row, main, paired, peaks, row
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from riskft.losses.fused import loss_terms
from riskft.losses.refresh import RefreshedLoss
from riskft.losses.weighted import RiskWeightedLoss
from riskft.risk.distribution import BINS, float_bins
from riskft.risk.leep import hardness

CLASSES, IGNORE = 4, 255


class Batch:
    """Logits of a network that has learned something, labels with ignored voxels, a map, and an image."""

    def __init__(self, edge: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.label = torch.randint(0, CLASSES, (2, 1, edge, edge, edge), generator=generator).to(torch.uint8)
        truth = torch.nn.functional.one_hot(self.label[:, 0].long(), CLASSES).movedim(-1, 1)
        noise = torch.randn(truth.shape, generator=generator)
        self.logits = (2 * noise + 4 * truth).contiguous()
        self.weight = torch.rand(self.label.shape, generator=generator) + 0.5
        self.image = torch.randn(self.label.shape, generator=generator)
        self.partly = self.label.clone()  # MONAI's loss cannot ignore voxels
        self.partly[:, :, : edge // 8] = IGNORE


def differentiated(
    loss: Callable[..., Tensor], logits: Tensor, *arguments: Tensor | None
) -> Callable[[], tuple[Tensor, ...]]:
    """Returns a function that computes the loss and its gradient."""
    leaf = logits.detach().requires_grad_(True)
    return lambda: torch.autograd.grad(loss(leaf, *arguments), leaf)


def refreshed() -> RefreshedLoss:
    """Returns a refreshed loss that makes its first table at its second step."""
    return RefreshedLoss(RiskWeightedLoss(), start=0, every=1)


def with_table(loss: RefreshedLoss, logits: Tensor, label: Tensor) -> RefreshedLoss:
    """Makes the first table, and postpones the next one beyond the measurement."""
    for _ in range(2):
        loss(logits, label)
    loss.load_state_dict({"_extra_state": {**loss.get_extra_state(), "timing": [0, 10**9]}})
    return loss


def losses(batch: Batch, rounds: int) -> Iterator[Row]:
    """Yields the rows of the losses alone."""
    monai, ours = DiceCELoss(to_onehot_y=True, softmax=True), RiskWeightedLoss()
    channels_last = batch.logits.contiguous(memory_format=torch.channels_last_3d)
    against = "MONAI DiceCELoss without them"
    for name, logits in (
        ("fp32", batch.logits),
        ("bf16", batch.logits.bfloat16()),
        ("fp32, channels-last", channels_last),
    ):
        said = f"RiskWeightedLoss with a map and ignored voxels, {name}"
        pair = differentiated(ours, logits, batch.partly, batch.weight), differentiated(monai, logits, batch.label)
        yield paired(said, against, *pair, aim=0.7, rounds=rounds)
        if "last" not in name:
            yield peaks(f"{said}, peak memory", against, *pair, aim=1.0, rounds=min(3, rounds))


def refreshing(batch: Batch, rounds: int) -> Iterator[Row]:
    """Yields the rows of refreshed weights against a map."""
    inside = differentiated(RiskWeightedLoss(), batch.logits, batch.partly, batch.weight)
    loss = with_table(refreshed(), batch.logits, batch.partly)
    fresh = differentiated(loss, batch.logits, batch.partly, batch.weight)
    yield paired("RefreshedLoss, fp32", "the loss inside with a map", fresh, inside, aim=1.05, rounds=3 * rounds)

    entropy = loss_terms(batch.logits, batch.label[:, 0], IGNORE).entropy.flatten()
    cells = float_bins(entropy).add_(batch.label.flatten().int(), alpha=BINS)
    table = torch.ones((CLASSES + 1) * BINS)

    def floor() -> None:
        inside()
        torch.bincount(cells, minlength=len(table))
        table.index_select(0, cells)

    said = "the loss inside, and one count and one look-up of a known bin per voxel (floor)"
    yield paired(said, "the loss inside with a map", floor, inside, rounds=3 * rounds)


class Step:
    """A training step: network, loss, backward pass, AdamW."""

    def __init__(self, batch: Batch, channels: tuple[int, ...], loss: Callable[..., Tensor], *arguments: Any) -> None:
        torch.manual_seed(0)
        self.network = UNet(3, 1, CLASSES, channels, (2,) * (len(channels) - 1), num_res_units=2, norm="instance")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=5e-4)
        self.batch, self.loss, self.arguments = batch, loss, arguments

    def __call__(self) -> None:
        self.loss(self.network(self.batch.image), *self.arguments).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def steps(batch: Batch, channels: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """Yields the rows of the training step."""
    fresh = with_table(refreshed(), batch.logits, batch.partly)
    ours = Step(batch, channels, fresh, batch.partly, batch.weight)
    plain = Step(batch, channels, RiskWeightedLoss(), batch.partly)
    monai = Step(batch, channels, DiceCELoss(to_onehot_y=True, softmax=True), batch.label)
    operations = []
    for step in (ours, plain):
        with FlopCounterMode(display=False) as counter:
            step()
        operations.append(counter.get_total_flops() / 1e9)
    what = "a training step with risk, refreshed"
    yield row(f"{what}: operations of its convolutions", "without", "GFLOP", *([one] for one in operations), aim=1.02)
    yield paired(what, "with MONAI DiceCELoss, without risk", ours, monai, rounds=rounds)
    timed = paired(what, "without", ours, plain, aim=1.02, rounds=rounds)
    yield timed
    alone = (
        differentiated(fresh, batch.logits, batch.partly, batch.weight),
        differentiated(RiskWeightedLoss(), batch.logits, batch.partly),
    )
    # the steps differ only in their losses, whose difference is measured alone because the rest is noisier than it
    loss = paired("", "", *alone, rounds=4 * rounds + 1)
    whole = timed.peer + loss.ours - loss.peer
    yield row(f"{what}: the losses' difference added", "without", "s CPU", [whole], [timed.peer], aim=1.02)
    yield paired(
        "a training step with a map from a pass of the source in each step, as public code does",
        "with the stored map",
        Step(batch, channels, made_on_the_fly(batch, ours.network)),
        Step(batch, channels, RiskWeightedLoss(), batch.partly, batch.weight),
        rounds=rounds,
    )


def made_on_the_fly(batch: Batch, source: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns a loss that makes its map from the source's prediction for the patch."""
    loss, conditional = RiskWeightedLoss(), torch.full((CLASSES, CLASSES), 1 / CLASSES)

    def weighted(logits: Tensor) -> Tensor:
        with torch.no_grad():
            weight = hardness(source(batch.image).softmax(1), batch.partly[:, 0], conditional, IGNORE)
        return loss(logits, batch.partly, weight.unsqueeze(1))

    return weighted


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yields all rows."""
    rounds, edge = (1, 16) if options.smoke else (9, 96)
    batch = Batch(edge)
    yield from losses(batch, rounds)
    yield from refreshing(batch, rounds)
    channels = (4, 8) if options.smoke else (32, 64, 128, 256, 320)
    yield from steps(Batch(min(edge, 64)), channels, 1 if options.smoke else 3)


if __name__ == "__main__":
    main("losses", rows)
