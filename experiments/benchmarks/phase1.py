"""Times phase 1 against a bare pass of the source network, and measures its memory.

    python experiments/benchmarks/phase1.py [--out FOLDER] [--smoke]

The bare pass reads the same prepared volumes and runs MONAI's ``SlidingWindowInferer`` on them, without softmax, and
keeps nothing. Phase 1 does everything that ``RiskPhase`` does, from the same volumes to the written weights.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from paired import Row, main, paired, peak, row, seconds
from torch import nn

from riskft.data.io.volumes import write_nifti
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case
from riskft.risk.mapping import RiskMapping
from riskft.risk.phase import RiskPhase
from riskft.risk.source_pass import SourcePass
from riskft.risk.store import RiskStore
from riskft.source.network import SourceNetwork
from riskft.source.output import SoftmaxOutput
from riskft.source.reading import Readings

CLASSES = 3
MAPPING = RiskMapping()  # made once, as the command line does


def cohort(folder: Path, volumes: int, shape: Sequence[int]) -> list[PreparedCase]:
    """Writes prepared volumes: noise with two structures, and a label with some ignored voxels."""
    cases = []
    for number in range(volumes):
        rng = np.random.default_rng(number)
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(edge // 4, edge // 2) for edge in shape)] = 1
        label[tuple(slice(edge // 3, 2 * edge // 5) for edge in shape)] = 2
        label[-2:, -2:, -2:] = 255
        image = (rng.standard_normal(shape, np.float32) + label.clip(0, 2))[..., None]
        place = folder / f"case{number:02d}"
        for name, volume in (("image", image), ("label", label), ("mask", np.ones_like(label))):
            write_nifti(place / f"{name}.nii", volume, np.eye(4))
        cases.append(PreparedCase(Case(place.name, {"t1": place / "image.nii"}, place / "label.nii"), "", place, 0.05))
    return cases


class Light(nn.Sequential):
    """One layer, so that the network itself needs little memory."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv3d(1, classes, 1))


def source(network: nn.Module, channels: int, roi: int) -> SourceNetwork:
    """Returns a source network as ``load_source`` returns it, with MONAI's default overlap."""
    inferer = SlidingWindowInferer([roi] * 3)
    return SourceNetwork(network.eval(), SoftmaxOutput(), Readings(), channels, (), (roi,) * 3, "", inferer=inferer)


def phase_1(found: SourceNetwork, cases: Sequence[PreparedCase]) -> None:
    """Makes all maps in a new store."""
    with tempfile.TemporaryDirectory() as folder:
        store = RiskStore(Path(folder), {}, MAPPING.describe())
        RiskPhase(SourcePass(store, found.predictor(), CLASSES), MAPPING).run(cases)


@torch.no_grad()
def bare_pass(found: SourceNetwork, cases: Sequence[PreparedCase]) -> None:
    """Runs the network over the same volumes."""
    for case in cases:
        found.inferer(case.to_subject()["image"].data[None].float(), found.network)


def overhead(found: SourceNetwork, cases: Sequence[PreparedCase], shape: Sequence[int], rounds: int) -> Row:
    """Measures the time that phase 1 takes beyond the bare pass, per voxel."""
    ours, peer = partial(phase_1, found, cases), partial(bare_pass, found, cases)
    more = [seconds(ours) - seconds(peer) for _ in range(rounds + 1)][1:]
    voxels = len(cases) * math.prod(shape)
    each = [1e6 * value / voxels for value in more]
    return row("phase 1, light network: beyond the bare pass", "limit", "µs a voxel", each, [0.12] * rounds, aim=1)


def memory(channels: int, edge: int, roi: int) -> Iterator[Row]:
    """Measures the peak of phase 1 on one volume against the size of its source probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        cases = cohort(Path(folder), 1, (edge,) * 3)
        megabytes = peak(partial(phase_1, source(Light(channels), channels, roi), cases))
        what = f"phase 1, {channels} source classes on {edge}³: peak memory"
        yield row(what, "one copy of its probabilities", "MB", [megabytes], [4e-6 * channels * edge**3], aim=1.3)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    smoke, rounds = options.smoke, 1 if options.smoke else 5
    shape = (32, 40, 24) if smoke else (96, 112, 96)
    with tempfile.TemporaryDirectory() as folder:
        cases = cohort(Path(folder), 2, shape)
        usual = source(UNet(3, 1, 4, [16, 32, 64, 128, 256], [2] * 4, num_res_units=2), 4, 32 if smoke else 64)
        ours, peer = partial(phase_1, usual, cases), partial(bare_pass, usual, cases)
        what = "phase 1, UNet with two residual units"
        yield paired(what, "MONAI SlidingWindowInferer", ours, peer, aim=1.1, rounds=rounds)
        light = source(UNet(3, 1, 4, [8, 16, 32], [2, 2]), 4, 32 if smoke else 64)
        yield overhead(light, cases, shape, rounds)
    yield from memory(12 if smoke else 104, 32 if smoke else 160, 16 if smoke else 96)


if __name__ == "__main__":
    main("phase1", rows)
