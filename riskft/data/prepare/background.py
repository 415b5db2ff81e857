"""Finds the background of a scan, and whether its grey value is meaningful.

A background is one constant value around the scan, left by skull stripping, defacing, registration or the end of the
field of view. Noisy air is not background, however few grey levels it has: the whole scan counts as body.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from riskft.data.io.resample import Indices

_LEAST_SHARE = 0.05
"""Smallest fraction of a scan's voxels in a background."""

_LEAST_SOLID = 0.7
"""Smallest fraction of a background voxel's neighbours that are background. In noise it equals the frequency of the
value; in skull-stripped scans it is above 0.95."""

_NEAR = 0.1
"""Distance to the background's value that counts as near, as a fraction of the 98th percentile of the distances."""

_MOST_NEAR = 0.2
"""Fraction of the body's voxels near the background's value above which they include air. Skull-stripped T1w, T2w and
FLAIR scans have up to 0.09, from cerebrospinal fluid and interpolated borders."""

_MOST_BELOW = 0.1
"""Fraction of the body's voxels that may lie below a value that still counts as the lowest, because resampling rings.
The same holds above the highest."""

_MOST_NEXT = 0.2
"""Fraction of the voxels at a background's border that may have the scan's next lower or higher grey level."""

_MOST_SPECKLES = 2e-4
"""Isolated voxels near the background's value, per background voxel, above which it is air."""

_MOST_AT_THE_TOP = 0.02
"""Fraction of the body's voxels with the highest value above which the scan was clipped to a window."""

_MOST_EQUAL = 0.02
"""Fraction of the body's voxels with the background's value above which it is one of the body's grey levels, as in the
lungs of a CT clipped to soft tissue. Skull-stripped T1w, T2w and FLAIR scans have up to 0.001."""

_HOUNSFIELD_AIR = -500.0
"""Background values up to this are a CT's air (-1000), or a scanner's padding outside its field of view."""

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Background:
    """The background of one channel."""

    value: float | None  #: Its grey value; None without a background.
    outside: Mask  #: Its voxels, bool of the channel's shape.
    #: Whether the value marks voxels without a measurement, as 0 does after a skull strip, and stands apart from the
    #: grey values of the body. Otherwise it is one of the scan's grey levels, such as air.
    stripped: bool

    @property
    def is_level(self) -> bool:
        """Whether there is a background whose value is one of the scan's grey levels."""
        return self.value is not None and not self.stripped


def find_background(channel: npt.NDArray[Any]) -> Background:
    """Returns the background of a channel (X, Y, Z) of finite values as stored in the file.

    It has the most frequent of the corners' values and is connected to the volume's faces. It makes up at least 5 % of
    the voxels, is not porous as a single level of noise would be, and does not border on the next grey levels as
    tissue with few levels does.
    """
    if channel.flags.fnc:  # as nibabel reads it; the code below is fast only in C order, and treats all axes alike
        found = find_background(channel.T)
        return replace(found, outside=found.outside.T)
    value, outside, box = _around(channel)
    share = np.count_nonzero(outside) / outside.size
    inner = channel[box], outside[box], value
    if share < _LEAST_SHARE or _solidity(outside, box) < _LEAST_SOLID or _is_tissue(*inner):
        return Background(None, np.zeros(channel.shape, dtype=bool), stripped=False)
    return Background(value, outside, _is_stripped(*inner, int(np.count_nonzero(outside))))


def _around(channel: npt.NDArray[Any]) -> tuple[float, Mask, Box]:
    """Returns the most frequent corner value, the mask of its voxels connected to a face of the volume, and a box.

    Faces, not corners: a body that reaches the border may cut the background into pieces. The box holds the body and
    one voxel around it. Outside the box everything is background and need not be examined.
    """
    corners = np.unique(channel[np.ix_(*((0, size - 1) for size in channel.shape))])
    value = max(corners, key=lambda corner: np.count_nonzero(channel == corner))
    outside: Mask = channel == value
    if np.count_nonzero(outside) < _LEAST_SHARE * outside.size:
        outside[...] = False
    first, last = bounds(~outside) or (np.zeros(3, dtype=np.int64),) * 2
    box = tuple(slice(max(low - 1, 0), high + 2) for low, high in zip(first, last, strict=True))
    pieces, count = ndimage.label(outside[box])
    reaches = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            reaches[np.unique(pieces.take(end, axis))] = True
    reaches[0] = False  # voxels with another value
    outside[box] = reaches.take(pieces)
    return float(value), outside, box


def _solidity(outside: Mask, box: Box) -> float:
    """Returns which fraction of the marked voxels' neighbours is marked; outside the box, all voxels are marked."""
    marked = mixed = 0
    for axis in range(3):
        ends = outside.take((0, -1), axis)
        marked += 2 * np.count_nonzero(outside) - np.count_nonzero(ends)
        lines = np.moveaxis(outside[box], axis, 0)
        mixed += np.count_nonzero(lines[1:] ^ lines[:-1])
    return (marked - mixed) / max(1, marked)


def _is_tissue(channel: npt.NDArray[Any], outside: Mask, value: float) -> bool:
    """Whether the value is within the range and borders on its next levels, as in a tight crop with few levels."""
    body = channel[~outside]
    below, above = body < value, body > value
    if min(np.count_nonzero(below), np.count_nonzero(above)) <= _MOST_BELOW * body.size:
        return False
    border = channel[~outside & ~_surrounded(~outside)]
    return bool(np.isin(border, (body[below].max(), body[above].min())).mean() > _MOST_NEXT)


def _is_stripped(channel: npt.NDArray[Any], outside: Mask, value: float, count: int) -> bool:
    """See ``Background.stripped``; ``count`` is the number of background voxels in the whole volume."""
    distance = channel[~outside].astype(np.float64)
    if not distance.size or value <= _HOUNSFIELD_AIR:
        return not distance.size
    distance -= value
    if abs(distance.mean()) <= 1e-3 * distance.std():
        return True  # already standardised, with 0 outside, as normalisation would do
    below, equal, at_the_top = (
        np.count_nonzero(found) / distance.size for found in (distance < 0, distance == 0, distance == distance.max())
    )
    np.abs(distance, out=distance)
    limit = _NEAR * float(np.percentile(distance, 98, overwrite_input=True))
    near = np.count_nonzero(distance < limit) / distance.size
    if below > _MOST_BELOW or near > _MOST_NEAR or at_the_top > _MOST_AT_THE_TOP or equal > _MOST_EQUAL:
        return False
    alone = channel[_surrounded(outside) & ~outside].astype(np.float64)
    return bool(np.count_nonzero(np.abs(alone - value) < limit) <= _MOST_SPECKLES * count)


def _surrounded(mask: Mask) -> Mask:
    """Returns the voxels of which all six neighbours are marked; outside the volume counts as marked."""
    result = np.ones_like(mask)
    for axis in range(3):
        here, there = np.moveaxis(result, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
    return result


def bounds(mask: Mask) -> tuple[Indices, Indices] | None:
    """Returns the first and the last voxel of a mask (X, Y, Z) along each axis; None if it is empty."""
    lines = [mask.any(axis=(1, 2)), mask.any(axis=(0, 2)), mask.any(axis=(0, 1))]
    if not lines[0].any():
        return None
    places = [np.flatnonzero(line) for line in lines]
    return np.array([line[0] for line in places]), np.array([line[-1] for line in places])
