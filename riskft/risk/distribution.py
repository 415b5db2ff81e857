"""The distribution of a value within each class, in bounded memory, merged exactly over volumes and ranks."""

from functools import cache

import torch
from torch import Tensor

BINS = 16384
_LIMIT = 20.0
_UNIT = 1e-6
_CELL = 14
"""Number of low bits in which the float32 values of a cell differ. A cell is at most 2^-9 = 0.20 % wide and a bin at
least 0.24 %, so a cell overlaps at most two bins."""


def float_bins(values: Tensor) -> Tensor:
    """Returns the bins, int32, of float32 values (N,) of at least 0, as ``ClassDistribution.bin_of``; the last for NaN.

    It needs no logarithm, which takes several times as long. For each cell, the table holds what to add to a value's
    bits so that those from ``_CELL`` on are its bin: the cell's first bin, and a carry from the next bin's boundary on.
    """
    bits = values.abs().view(torch.int32)  # -0.0 is 0
    cells = _table(values.device).index_select(0, bits >> _CELL)
    return cells.add_(bits).bitwise_right_shift_(_CELL)


@cache
def _table(device: torch.device) -> Tensor:
    """Returns the table, (2^17,) int32, with one entry for each cell of the numbers from 0 up."""
    start = torch.arange(1 << (31 - _CELL), dtype=torch.int32) << _CELL

    def bin_at(offset: Tensor) -> Tensor:
        return _bin_of((start + offset).view(torch.float32).nan_to_num(torch.inf)).int()

    first = bin_at(torch.zeros_like(start))
    below, above = torch.full_like(start, -1), torch.full_like(start, 1 << _CELL)  # around the next bin's first offset
    for _ in range(_CELL + 1):
        middle = (below + above) // 2
        beyond = bin_at(middle.clamp(0)) > first
        below, above = torch.where(beyond, below, middle), torch.where(beyond, middle, above)
    return ((first << _CELL) + ((1 << _CELL) - above) - start).to(device)


def _bin_of(values: Tensor) -> Tensor:
    position = (values.double() / _UNIT).asinh_().add_(_LIMIT).mul_(BINS / (2 * _LIMIT))
    return position.clamp_(0, BINS - 1).long()


class ClassDistribution:
    """Counts values per class in bins of asinh(value / 1e-6): 0.25 % wide above 1e-5, linear around 0.

    Counts are integers, so merging is exact, and ranks do not depend on the number of processes.

    Args:
        num_classes: Number of classes.

    Attributes:
        counts: (num_classes, BINS) int64.
        low: (num_classes,) float64, the smallest value, or +inf for an empty class.
        high: (num_classes,) float64, the largest value, or -inf for an empty class.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, BINS, dtype=torch.int64)
        self.low = torch.full((num_classes,), torch.inf, dtype=torch.float64)
        self.high = torch.full((num_classes,), -torch.inf, dtype=torch.float64)

    @classmethod
    def of_counts(cls, counts: Tensor) -> "ClassDistribution":
        """Returns the distribution with the given counts (num_classes, BINS) int64, all values at bin centres."""
        result = cls(len(counts))
        result.counts = counts.clone()
        seen = counts > 0
        centres = cls.bin_centres()
        result.low = torch.where(seen, centres, torch.inf).amin(1)
        result.high = torch.where(seen, centres, -torch.inf).amax(1)
        return result

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.counts.shape[0]

    @staticmethod
    def bin_of(values: Tensor) -> Tensor:
        """Returns the bin, int64, of each value."""
        if values.dtype == torch.float32 and values.device.type == "cpu" and values.numel() and values.min() >= 0:
            return float_bins(values.flatten()).view(values.shape).long()
        return _bin_of(values)

    @classmethod
    def cells(cls, values: Tensor, classes: Tensor) -> Tensor:
        """Returns the index, int64, into the flat counts for each value and class."""
        return cls.bin_of(values).add_(classes, alpha=BINS)

    @staticmethod
    def bin_centres() -> Tensor:
        """Returns the value at the centre of each bin, (BINS,) float64."""
        position = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * _LIMIT / BINS) - _LIMIT
        return torch.sinh(position) * _UNIT

    def update(self, values: Tensor, classes: Tensor) -> None:
        """Adds values (N,) of the given classes (N,)."""
        values, classes = values.detach().cpu(), classes.detach().cpu().long()
        cells, values = self.cells(values, classes), values.double()
        self.counts.view(-1).scatter_add_(0, cells, torch.ones_like(cells))
        self.low.scatter_reduce_(0, classes, values, "amin")
        self.high.scatter_reduce_(0, classes, values, "amax")

    def merge(self, other: "ClassDistribution") -> None:
        """Adds another distribution over the same classes."""
        self.counts += other.counts
        self.low = torch.minimum(self.low, other.low)
        self.high = torch.maximum(self.high, other.high)

    def pooled(self) -> "ClassDistribution":
        """Returns the distribution over all classes together, repeated for each class."""
        result = ClassDistribution(self.num_classes)
        result.counts = self.counts.sum(0, keepdim=True).expand_as(self.counts)
        result.low = self.low.min().expand_as(self.low)
        result.high = self.high.max().expand_as(self.high)
        return result

    def rank_of_bin(self, resolution: float = 0.0) -> Tensor:
        """Returns the mid-rank in [0, 1] of each bin, (num_classes, BINS) float64; ties share it.

        Args:
            resolution: Values that differ by at most this count as ties; 0 for ties within a bin only.
        """
        counts = self.counts.double()
        after = counts.cumsum(1)
        before = after - counts
        if resolution > 0:
            centres = self.bin_centres()
            first = torch.searchsorted(centres, centres - resolution)
            last = torch.searchsorted(centres, centres + resolution, right=True) - 1
            before, after = before[:, first], after[:, last]
        return (before + after) / 2 / after[:, -1:].clamp_min(1)

    def quantile(self, q: float) -> Tensor:
        """Returns the ``q`` quantile of each class, (num_classes,) float64, exact to a bin's width."""
        after = self.counts.cumsum(1).double()
        needed = (q * after[:, -1:]).contiguous()
        index = torch.searchsorted(after, needed).squeeze(1).clamp_max(BINS - 1)
        return self.bin_centres()[index].clamp(self.low, self.high)
