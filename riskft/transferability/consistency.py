"""CC-FV: are a class's features alike in all cases, and do they vary within a case? Higher is better.

Yang et al., "Pick the Best Pre-trained Model", MICCAI 2023, arXiv 2307.11958: ``log(F_v / C_cons)``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from riskft.transferability.samples import CannotScoreError, VoxelSample

_SOFTENING = 1e-3  # added to squared distances on the unit sphere, as the authors' code does: features may coincide
_NEIGHBOURS = 10  # cases on either side that a case is compared with, so that the work grows with the cases only
_ROWS = 512


@dataclass(frozen=True)
class Consistency:
    """What CC-FV needs to know of each case and of each pair of cases."""

    pairs: Tensor  #: (P, 2) int64, indices of cases.
    classes: Tensor  #: (P,) int64, the foreground class that a distance is of.
    distances: Tensor  #: (P,) float64, between the class's features in the two cases.
    varieties: Tensor  #: (K,) float64, of each case.


def consistency(samples: Sequence[VoxelSample], depth: str) -> Consistency:
    """Measures the features of a depth.

    The distance between two cases' features of a class is Wasserstein's W2 between Gaussians, as in the authors' code,
    each voxel of the class counting once. It is divided by the features' standard deviation, the root of their total
    variance over all voxels: otherwise a network would score higher for smaller features. The variety of a case is the
    inverse of the mean of 1/distance over pairs of its voxels on the unit sphere, weighted by what each voxel stands
    for. Each case is compared with the 10 on either side in the order of the samples, which is all of them up to 21.

    Raises CannotScoreError if the features do not vary.
    """
    features = [sample.features[depth].double() for sample in samples]
    everything = torch.cat(features)
    scale = everything.var(0, correction=0).sum().sqrt()
    if not scale > 1e-6 * everything.square().sum(1).mean().sqrt():
        raise CannotScoreError("the features are the same in all voxels")
    gaussians: list[dict[int, tuple[Tensor, Tensor]]] = []
    for values, sample in zip(features, samples, strict=True):
        labels = [label for label in torch.unique(sample.classes).tolist() if label != 0]
        gaussians.append({label: _gaussian(values[sample.classes == label] / scale) for label in labels})
    found = [
        (one, other, label, _wasserstein(gaussians[one][label], gaussians[other][label]))
        for one, other in _pairs(len(samples))
        for label in gaussians[one].keys() & gaussians[other].keys()
    ]
    pairs = torch.tensor([row[:2] for row in found], dtype=torch.long).reshape(-1, 2)
    classes = torch.tensor([row[2] for row in found], dtype=torch.long)
    distances = torch.tensor([row[3] for row in found], dtype=torch.float64)
    varieties = [_variety(values, sample.weights) for values, sample in zip(features, samples, strict=True)]
    return Consistency(pairs, classes, distances, torch.tensor(varieties, dtype=torch.float64))


def cc_fv(parts: Consistency, times: Sequence[int]) -> float:
    """Returns CC-FV of the cases, each drawn as often as ``times`` says.

    C_cons is the mean over foreground classes of the mean distance over pairs of different cases, F_v the mean variety.
    Raises CannotScoreError if no foreground class is in two cases, or its features are the same there.
    """
    counts = torch.tensor(times, dtype=torch.float64)
    weights = counts[parts.pairs].prod(1)
    means = []
    for label in torch.unique(parts.classes):
        chosen = parts.classes == label
        if weights[chosen].sum() > 0:
            means.append(float((weights * parts.distances)[chosen].sum() / weights[chosen].sum()))
    if not means:
        raise CannotScoreError("no foreground class is in two cases, whose features could be compared")
    inconsistency = math.fsum(means) / len(means)
    variety = float((counts * parts.varieties).sum() / counts.sum())
    if inconsistency < 1e-6 or not variety:
        raise CannotScoreError("the features of each class are the same in all cases, or those of a case")
    return math.log(variety / inconsistency)


def _pairs(count: int) -> list[tuple[int, int]]:
    found = {
        (min(one, other), max(one, other))
        for one in range(count)
        for step in range(1, _NEIGHBOURS + 1)
        if (other := (one + step) % count) != one
    }
    return sorted(found)


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean (F,), and a root R (at most F rows) of the covariance R^T R, of features (N, F)."""
    mean = features.mean(0)
    centred = (features - mean) / math.sqrt(len(features))
    return mean, torch.linalg.qr(centred, mode="r").R if len(features) > features.shape[1] else centred


def _wasserstein(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Returns W2 between Gaussians: |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), and of that the root.

    The last trace is the sum of the singular values of R R'^T, where C = R^T R.
    """
    overlap = torch.linalg.svdvals(one[1] @ other[1].T).sum()
    spread = one[1].square().sum() + other[1].square().sum() - 2 * overlap
    return math.sqrt(max(0.0, float((one[0] - other[0]).square().sum() + spread)))


def _variety(features: Tensor, weights: Tensor) -> float:
    """Returns the inverse of the weighted mean of 1/distance over pairs of different voxels, on the unit sphere.

    That mean is the hyperspherical energy with s = 1 (Liu et al., NeurIPS 2018) per pair. One voxel has no variety: 0.
    """
    points = features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)
    energy = torch.zeros((), dtype=torch.float64)
    for rows, own in zip(torch.split(points, _ROWS), torch.split(weights, _ROWS), strict=True):
        inverse = (torch.cdist(rows, points).square() + _SOFTENING).rsqrt()
        energy += own @ inverse @ weights
    energy -= weights.square().sum() / math.sqrt(_SOFTENING)  # a voxel and itself
    pairs = weights.sum() ** 2 - weights.square().sum()
    return float(pairs / energy) if pairs > 0 and energy > 0 else 0.0
