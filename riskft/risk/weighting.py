"""From hardness to weight: normalise into [0, 1], then a weight function. Each choice is an object with its options.

The paper states that the map quantifies hardness and that the loss is weighted by it; how one becomes the other is
our reading, and every part is an option (see ``RiskMapping`` for the default and its reason).
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.risk.distribution import BINS, ClassDistribution


class Normalise(ABC):
    """Maps values to n in [0, 1] by the distribution that they come from."""

    @abstractmethod
    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values (N,) float64 of classes (N,) int64; returns (N,) float64 in [0, 1]."""


class QuantileNormalise(Normalise):
    """n = (v - min) / (quantile - min), clipped at 1.

    One bad voxel in 10^4 leaves plain min-max with a median weight of 1.006 against a maximum of 10, so clipping
    matters.

    Args:
        q: Fraction of voxels below the value that becomes 1.
    """

    def __init__(self, q: float = 0.999) -> None:
        if not 0 < q <= 1:
            raise InputError(f"Expected argument `q` to be in (0, 1], but got {q}")
        self.q = q

    def __call__(self, values: Tensor, classes: Tensor, distribution: ClassDistribution) -> Tensor:
        """Normalises values as the base class says."""
        top = distribution.high if self.q == 1 else distribution.quantile(self.q)
        span = (top - distribution.low)[classes]
        # a class of one value has no hard part: n = 0
        return torch.where(span > 0, (values - distribution.low[classes]) / span, torch.zeros_like(values)).clamp(0, 1)


class MinMaxNormalise(QuantileNormalise):
    """n = (v - min) / (max - min)."""

    def __init__(self) -> None:
        super().__init__(q=1.0)


class WindowNormalise(Normalise):
    """n = (v - low) / (high - low), clipped to [0, 1]: fixed bounds, for values that mean something by themselves.

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

    Values closer to each other than the resolution count as ties (half of them below, half above), because a
    network's outputs far from any border differ by noise (often in the checkerboard of its upsampling), which ranks
    would blow up.

    Args:
        resolution: In the values' unit, nats; 0 tells apart whatever differs.
    """

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

    Args:
        normalise: The normalisation in use.
        weight: The weight function in use.
        scale: The distribution that values are normalised by.
        counted: The distribution whose voxels are averaged over (of the same classes), to a bin's width exactly.
        by_gradient: A voxel counts by the size of its cross-entropy's gradient in the logits, 1 - p(y) = 1 - exp(-h),
            not by 1; values must be hardness h then. A class that is nowhere hard gets 1.
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
