"""Times Dice and HD95 of a whole volume with riskft and with MONAI's two metrics, on one core.

Usage: ``python experiments/benchmarks/evaluation.py [--out FOLDER] [--smoke]``. Both get integer classes, which MONAI
needs as one-hot. Their values must agree.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import paired
import torch
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from scipy import ndimage
from torch import Tensor

from riskft.evaluation.metrics import score_case

CLASSES = 4  # and background
NAMES = ["background", *(f"class {index}" for index in range(1, CLASSES + 1))]
SPACING = (1.0, 1.0, 1.0)


def field(generator: np.random.Generator, edge: int, width: float) -> np.ndarray:
    """Returns smooth noise (edge, edge, edge) with a standard deviation of 1; ``width`` is in voxels."""
    noise = ndimage.gaussian_filter(generator.standard_normal((edge,) * 3), width)
    return noise / noise.std()


def shells(edge: int, error: float) -> tuple[Tensor, Tensor]:
    """Returns a segmentation and a label (edge, edge, edge) of four nested classes, like the layers of a head."""
    generator = np.random.default_rng(0)
    axis = np.linspace(-1.1, 1.1, edge)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) + 0.15 * field(generator, edge, 6)
    predicted = radius + error * field(generator, edge, 2)
    limits = np.array([0.35, 0.55, 0.75, 0.95])
    pair = ((limits[:, None, None, None] > volume).sum(0) for volume in (predicted, radius))
    return tuple(torch.from_numpy(volume.astype(np.uint8)) for volume in pair)


def lesions(edge: int) -> tuple[Tensor, Tensor]:
    """Returns a segmentation and a label of four classes, one ellipsoid each, shifted by up to 2 voxels."""
    generator = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1)
    pair = np.zeros((2, edge, edge, edge), dtype=np.uint8)
    for index in range(1, CLASSES + 1):
        centre, radii = generator.uniform(0.25, 0.75, 3) * edge, generator.uniform(0.08, 0.2, 3) * edge
        for volume, shift in zip(pair, (generator.uniform(-2, 2, 3), 0), strict=True):
            volume[(((grid - centre - shift) / radii) ** 2).sum(-1) < 1] = index
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def with_monai(predicted: Tensor, true: Tensor, surface: bool) -> list[float]:
    """Returns the Dice of each class, followed by the HD95 of each if asked for."""
    pair = [torch.nn.functional.one_hot(one.long(), CLASSES + 1).movedim(-1, 0)[None] for one in (predicted, true)]
    found = [DiceMetric(include_background=False)(*pair)]
    if surface:
        found.append(HausdorffDistanceMetric(include_background=False, percentile=95)(*pair, spacing=list(SPACING)))
    return torch.cat(found, dim=1)[0].tolist()


def with_riskft(predicted: Tensor, true: Tensor, surface: bool) -> list[float]:
    """Returns the same as ``with_monai``."""
    scores = score_case("case", predicted, true, NAMES, SPACING, surface)
    return [score.dice for score in scores] + [score.hd95_mm for score in scores if surface]


def rows(options: argparse.Namespace) -> Iterator[paired.Row]:
    """Yields the table."""
    edge, rounds = (32, 1) if options.smoke else (160, 3)
    volumes = {
        "large structures": shells(edge, 0.02),
        "large structures, Dice 0.6": shells(edge, 0.1),
        "small structures": lesions(edge),
    }
    for what, pair in volumes.items():
        for surface in (True, False):
            np.testing.assert_allclose(with_riskft(*pair, surface), with_monai(*pair, surface), rtol=1e-5)
            name = f"{'Dice + HD95' if surface else 'Dice'}, {CLASSES} classes, {edge}³, {what}"
            against = "MONAI DiceMetric" + " + HausdorffDistanceMetric" * surface
            ours, peer = (
                lambda function=function, pair=pair, surface=surface: function(*pair, surface)
                for function in (with_riskft, with_monai)
            )
            yield paired.paired(name, against, ours, peer, aim=0.3 if surface else None, rounds=rounds, warmup=0)


if __name__ == "__main__":
    paired.main("evaluation", rows)
