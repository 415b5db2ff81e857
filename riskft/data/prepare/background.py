"""Finds the background of a scan, and whether its grey value is meaningful.

A background is one constant value around the scan, left by skull stripping, defacing, registration or the end of the
field of view. Noisy air is not background, however few grey levels it has: the whole scan counts as body.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

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

_NEIGHBOURS = ndimage.generate_binary_structure(3, 1)
_NEIGHBOURS[1, 1, 1] = False


@dataclass(frozen=True)
class Background:
    """The background of one channel.

    Attributes:
        value: Its grey value; None without a background.
        outside: Its voxels, bool of the channel's shape.
        stripped: Whether the value marks voxels without a measurement, as 0 does after a skull strip, and stands apart
            from the grey values of the body. Otherwise it is one of the scan's grey levels, such as air.
    """

    value: float | None
    outside: npt.NDArray[np.bool_]
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
    value, outside = _around(channel)
    if not outside.mean() >= _LEAST_SHARE or _solidity(outside) < _LEAST_SOLID or _is_tissue(channel, outside, value):
        return Background(None, np.zeros(channel.shape, dtype=bool), stripped=False)
    return Background(value, outside, _is_stripped(channel, outside, value))


def _around(channel: npt.NDArray[Any]) -> tuple[float, npt.NDArray[np.bool_]]:
    """Returns the most frequent of the corners' values, and where it is connected to a face of the volume.

    Faces, not corners: a body that reaches the border may cut the background into pieces.
    """
    corners = np.unique(channel[np.ix_(*((0, size - 1) for size in channel.shape))])
    equal = max((channel == corner for corner in corners), key=np.count_nonzero)
    value = float(channel[equal][0])
    if np.count_nonzero(equal) < _LEAST_SHARE * equal.size:
        return value, np.zeros(channel.shape, dtype=bool)
    pieces, count = ndimage.label(equal)
    reaches = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            reaches[np.unique(pieces.take(end, axis))] = True
    reaches[0] = False  # voxels with another value
    return value, reaches[pieces]


def _solidity(outside: npt.NDArray[np.bool_]) -> float:
    """Returns the fraction of the up to six neighbours of marked voxels that are marked."""
    inner = sum(np.count_nonzero(here & there) for here, there in _pairs(outside))
    mixed = sum(np.count_nonzero(here ^ there) for here, there in _pairs(outside))
    return 2 * inner / max(1, 2 * inner + mixed)


def _is_tissue(channel: npt.NDArray[Any], outside: npt.NDArray[np.bool_], value: float) -> bool:
    """Whether the value is within the range and borders on its next levels, as in a tight crop with few levels."""
    body = channel[~outside]
    lower, higher = body[body < value], body[body > value]
    if min(lower.size, higher.size) <= _MOST_BELOW * body.size:
        return False
    border = channel[~outside & _touches(outside)]
    return bool(np.isin(border, (lower.max(), higher.min())).mean() > _MOST_NEXT)


def _is_stripped(channel: npt.NDArray[Any], outside: npt.NDArray[np.bool_], value: float) -> bool:
    body = channel[~outside].astype(np.float64)
    if not body.size or value <= _HOUNSFIELD_AIR:
        return not body.size
    if abs(body.mean() - value) <= 1e-3 * body.std():
        return True  # already standardised, with 0 outside, as normalisation would do
    distance = np.abs(body - value)
    limit = _NEAR * float(np.percentile(distance, 98))
    if (
        (body < value).mean() > _MOST_BELOW
        or (distance < limit).mean() > _MOST_NEAR
        or (body == body.max()).mean() > _MOST_AT_THE_TOP
        or (body == value).mean() > _MOST_EQUAL
    ):
        return False
    near = np.zeros_like(outside)
    near[~outside] = distance < limit
    return bool(np.count_nonzero(near & _alone(outside)) <= _MOST_SPECKLES * np.count_nonzero(outside))


def _touches(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns the voxels of which at least one of the six neighbours is marked."""
    return ndimage.binary_dilation(mask, _NEIGHBOURS)


def _alone(outside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns the voxels of which all six neighbours are marked; outside the volume counts as marked."""
    return ndimage.binary_erosion(outside, _NEIGHBOURS, border_value=1)


def _pairs(mask: npt.NDArray[np.bool_]) -> list[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Returns, for each axis, all voxels but the last and their successors."""
    return [(mask.take(range(size - 1), axis), mask.take(range(1, size), axis)) for axis, size in enumerate(mask.shape)]
