"""The bins of ``ClassDistribution`` for float32 values, without a logarithm: for the voxels of each training step."""

from functools import cache

import torch
from torch import Tensor

from riskft.risk.distribution import ClassDistribution

_LOW = 14
"""Bits that a cell leaves out. A cell is at most 2^-9 = 0.20 % wide and a bin at least 0.24 %, so a cell meets at most
two bins."""


def float_bins(values: Tensor) -> Tensor:
    """Returns the bin, int32, of each float32 value of at least 0 (N,), as ``ClassDistribution.bin_of``; NaN's is last.

    The table holds, for each cell of numbers with the same leading bits, what to add to a number's bits so that those
    from ``_LOW`` on are its bin: the cell's first bin, and a carry from the boundary on.
    """
    bits = values.abs().view(torch.int32)  # -0.0 is 0
    cells = _table(values.device).index_select(0, bits >> _LOW)
    return cells.add_(bits).bitwise_right_shift_(_LOW)


@cache
def _table(device: torch.device) -> Tensor:
    """Returns the table, (2^17,) int32, one entry for each cell of numbers from 0 up."""
    start = torch.arange(1 << (31 - _LOW), dtype=torch.int32) << _LOW

    def bin_at(offset: Tensor) -> Tensor:
        values = (start + offset).view(torch.float32)
        return ClassDistribution.bin_of(values.nan_to_num(torch.inf)).int()

    first = bin_at(torch.zeros_like(start))
    below, above = torch.full_like(start, -1), torch.full_like(start, 1 << _LOW)  # around the next bin's first offset
    for _ in range(_LOW + 1):
        middle = (below + above) // 2
        beyond = bin_at(middle.clamp(0)) > first
        below, above = torch.where(beyond, below, middle), torch.where(beyond, middle, above)
    return ((first << _LOW) + ((1 << _LOW) - above) - start).to(device)
