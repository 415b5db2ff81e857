"""Turns hardness into weights: normalise to [0, 1], then apply a weight function. Each is a class with its options.

The paper says that the map quantifies hardness and weights the loss. How hardness becomes a weight is our
interpretation, so every part is an option (see ``RiskMapping`` for the default and its reason).

To add one, derive from ``Normalise`` or ``WeightFunction``, export it in ``riskft/__init__.pyi``, and name it in a
config as ``configs/method/prior_relative.yaml`` does.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.risk.distribution import BINS, ClassDistribution


class Normalise(ABC):
    """Maps values to n in [0, 1] by their distribution."""

    by_bin: ClassVar[bool] = False
    """Whether n depends only on the class and the distribution's bin of the value, so that a table can hold it."""

    @abstractmethod
    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values (N,) float64 of classes (N,) int64; returns (N,) float64 in [0, 1]."""


class QuantileNormalise(Normalise):
    """n = (v - min) / (quantile - min), clipped at 1.

    Clipping matters: without it, one bad voxel in 10^4 gives a median weight of 1.006 at a maximum of 10.

    Args:
        q: Quantile that becomes 1.
    """

    def __init__(self, q: float = 0.999) -> None:
        if not 0 < q <= 1:
            raise InputError(f"Expected argument `q` to be in (0, 1], but got {q}")
        self.q = q

    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values as the base class says."""
        top = distribution.high if self.q == 1 else distribution.quantile(self.q)
        span = (top - distribution.low)[classes]
        # a class with a single value has no hard voxels: n = 0
        return torch.where(span > 0, (values - distribution.low[classes]) / span, torch.zeros_like(values)).clamp(0, 1)


class MinMaxNormalise(QuantileNormalise):
    """n = (v - min) / (max - min)."""

    def __init__(self) -> None:
        super().__init__(q=1.0)


class WindowNormalise(Normalise):
    """n = (v - low) / (high - low), clipped to [0, 1]: fixed bounds, for values with an absolute meaning.

    Args:
        low: Value of n = 0, nats.
        high: Value of n = 1, nats.
    """

    def __init__(self, low: float = -1.0, high: float = 2.0) -> None:
        if not low < high:
            raise InputError(f"Expected argument `low` to be less than `high`, but got {low} and {high}")
        self.low, self.high = low, high

    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values as the base class says."""
        return ((values - self.low) / (self.high - self.low)).clamp(0, 1)


class RankNormalise(Normalise):
    """n = fraction of voxels with a smaller value: the empirical distribution function.

    Values that differ by at most the resolution count as ties (half below, half above), because far from any border a
    network's outputs differ only by noise, such as the checkerboard of upsampling, which ranks would amplify.

    Args:
        resolution: In nats, the values' unit; 0 distinguishes all values.
    """

    by_bin = True

    def __init__(self, resolution: float = 0.01) -> None:
        if resolution < 0:
            raise InputError(f"Expected argument `resolution` to be at least 0, but got {resolution}")
        self.resolution = resolution

    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values as the base class says."""
        ranks: Tensor = distribution.rank_of_bin(self.resolution)[classes, distribution.bin_of(values)]
        return ranks


class WeightFunction(ABC):
    """Maps n in [0, 1] to a weight > 0, increasing."""

    @abstractmethod
    def __call__(self, n: Tensor) -> Tensor:
        """Returns the weight, same shape and dtype."""


class ExponentialWeight(WeightFunction):
    """w = base^n, from 1 to ``base``."""

    def __init__(self, base: float = 10.0) -> None:
        if base < 1:
            raise InputError(f"Expected argument `base` to be at least 1, but got {base}")
        self.base = base

    def __call__(self, n: Tensor) -> Tensor:
        """Returns the weight."""
        return torch.pow(torch.as_tensor(self.base, dtype=n.dtype), n)


class LinearWeight(WeightFunction):
    """w = 1 + alpha n."""

    def __init__(self, alpha: float = 1.0) -> None:
        if alpha < 0:
            raise InputError(f"Expected argument `alpha` to be at least 0, but got {alpha}")
        self.alpha = alpha

    def __call__(self, n: Tensor) -> Tensor:
        """Returns the weight."""
        return 1 + self.alpha * n


class PowerWeight(WeightFunction):
    """w = floor + gain n^exponent."""

    def __init__(self, floor: float = 0.5, gain: float = 3.0, exponent: float = 3.0) -> None:
        for name, value in (("floor", floor), ("gain", gain), ("exponent", exponent)):
            if value < 0 or (name != "gain" and value == 0):
                raise InputError(f"Expected argument `{name}` to be positive, but got {value}")
        self.floor, self.gain, self.exponent = floor, gain, exponent

    def __call__(self, n: Tensor) -> Tensor:
        """Returns the weight."""
        return self.floor + self.gain * n.pow(self.exponent)


def mean_weight(
    normalise: Normalise,
    weight: WeightFunction,
    scale: ClassDistribution,
    counted: ClassDistribution,
    by_gradient: bool = False,
) -> Tensor:
    """Returns the mean weight of each class, (num_classes,) float64, 1 for a class without voxels.

    ``scale`` is the distribution that normalises the values, ``counted`` that of the voxels to average over (same
    classes), exact to a bin's width. ``by_gradient`` weights each voxel by the size of its cross-entropy gradient in
    the logits, 1 - p(y) = 1 - exp(-h); values must be hardness h. A class without hard voxels gets 1.
    """
    result = torch.ones(counted.num_classes, dtype=torch.float64)
    values = ClassDistribution.bin_centres().clamp(counted.low.unsqueeze(1), counted.high.unsqueeze(1))
    classes = torch.arange(counted.num_classes).repeat_interleave(BINS)
    n = normalise(values.flatten(), classes, scale).view_as(values)
    for index in range(counted.num_classes):
        counts = counted.counts[index].double()
        if by_gradient:
            counts = counts * -torch.expm1(-values[index].clamp_min(0))
        if counts.sum() > 0:
            result[index] = (weight(n[index]) * counts).sum() / counts.sum()
    return result
