"""Sums over voxels from which the scores of features follow, so that drawing cases again costs nothing per voxel."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from riskft.transferability.samples import CannotScoreError

_SAME = 1e-12  # the share of the mean square below which float32 features differ by rounding alone


@dataclass(frozen=True)
class Moments:
    """Sums, float64, over voxels x of Y classes with F features each, taken relative to a common centre."""

    centre: Tensor  #: (F,), the point that was subtracted, which keeps the powers below from cancelling.
    counts: Tensor  #: (Y,), voxels.
    sums: Tensor  #: (Y, F), x.
    squares: Tensor  #: (Y,), |x|^2.
    products: Tensor  #: (F, F), x x^T of all classes.
    cubes: Tensor  #: (F,), |x|^2 x of all classes.
    fourths: Tensor  #: (), |x|^4 of all classes.

    @property
    def mean(self) -> Tensor:
        """The mean over all voxels, (F,), relative to the centre."""
        return self.sums.sum(0) / self.counts.sum()

    def covariance(self) -> Tensor:
        """Returns the covariance over all voxels, (F, F); raises CannotScoreError if the features do not vary."""
        mean = self.mean
        covariance = self.products / self.counts.sum() - mean.outer(mean)
        scale = covariance.trace().clamp_min(0) + (mean + self.centre).square().sum()
        if not covariance.trace() > _SAME * scale:
            raise CannotScoreError("the features are the same in all voxels")
        return covariance

    def present(self, least: int = 1) -> Tensor:
        """Returns the classes with at least ``least`` voxels; raises CannotScoreError if there are fewer than two."""
        classes = (self.counts >= least).nonzero().squeeze(1)
        if len(classes) < 2:
            most = "" if least == 1 else f" with at least {least} voxels"
            raise CannotScoreError(f"{len(classes)} class{most} in the labelled cases, expected at least 2")
        return classes


def moments(features: Tensor, classes: Tensor, num_classes: int, centre: Tensor) -> Moments:
    """Sums over the voxels of a case: ``features`` (N, F) floating, ``classes`` (N,) int64, ``centre`` (F,) float64."""
    shifted = features.double() - centre
    squares = shifted.square().sum(1)
    sums = torch.zeros(num_classes, shifted.shape[1], dtype=torch.float64).index_add_(0, classes, shifted)
    return Moments(
        centre,
        torch.bincount(classes, minlength=num_classes).double(),
        sums,
        torch.bincount(classes, squares, minlength=num_classes),
        shifted.T @ shifted,
        squares @ shifted,
        squares.square().sum(),
    )


def total(parts: Sequence[Moments], times: Sequence[int]) -> Moments:
    """Sums the moments of cases that have one centre, each as often as ``times`` says."""
    names = [field.name for field in fields(Moments) if field.name != "centre"]
    sums = {
        name: torch.stack([getattr(part, name) * count for part, count in zip(parts, times, strict=True)]).sum(0)
        for name in names
    }
    return Moments(parts[0].centre, **sums)
