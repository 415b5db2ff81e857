"""Where files place their voxels, and what the data check finds about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riskft.data.findings import FaultKind, Report

TOLERANCE_MM = 0.05
"""Largest distance, in mm, between the corner voxels of two files of a case. Rounding in headers stays far below."""


@dataclass(frozen=True)
class VolumeFile:
    """A readable 3-D file."""

    path: Path  #: The file.
    shape: tuple[int, ...]  #: Voxels along each axis.
    spacing: tuple[float, ...]  #: Voxel edge lengths in mm.
    #: Voxel indices to mm, shape 4 x 4; None if the file has no meaningful one (Analyze, or singular).
    affine: npt.NDArray[np.float64] | None
    orientation: str  #: Where the axes point, for example LPS for left, posterior, superior; "?" without an affine.
    source: Any  #: The open image, see ``riskft.data.io.formats.open_image``.


def has_place(path: Path, spacing: Sequence[float], affine: npt.NDArray[np.float64], report: Report) -> bool:
    """Whether an affine (4 x 4) is usable; reports an unusable affine or spacing."""
    sound = bool(np.isfinite(spacing).all()) and 0 not in spacing
    if not sound:
        message = f"the header's spacing is {times(spacing)} mm, expected numbers above 0. Correct the header"
        report(FaultKind.GEOMETRY, path, message)
    message = ""
    if not np.isfinite(affine).all():
        message = "the affine has NaN or infinite values, expected numbers. Correct the header"
    elif _is_flat(affine[:3, :3]):
        message = "the affine is singular, it maps the volume to a plane; expected three axes. Correct the header"
    if message and sound:  # otherwise the spacing may be the cause
        report(FaultKind.GEOMETRY, path, message)
    return not message


def _is_flat(axes: npt.NDArray[np.float64]) -> bool:
    lengths = np.linalg.norm(axes, axis=0)
    # independent of the unit: the volume that the axes span, relative to a box with their lengths
    return not lengths.all() or bool(abs(np.linalg.det(axes / lengths)) < 1e-6)


def compare_grids(volumes: Sequence[VolumeFile], report: Report) -> None:
    """Reports the volumes of a case whose grid differs from the first one's."""
    first = volumes[0]
    for volume in volumes[1:]:
        if volume.shape != first.shape:
            message = (
                f"the shape is {times(volume.shape)}, expected {times(first.shape)} as in {first.path.name}. "
                "Resample one to the other"
            )
            report(FaultKind.SHAPE, volume.path, message)
        elif first.affine is not None and volume.affine is not None:
            distance = corner_distance(first.shape, volume.affine - first.affine)
            if distance > TOLERANCE_MM:
                message = (
                    f"the affine places a corner {distance:.3g} mm from where {first.path.name} has it, expected at "
                    f"most {TOLERANCE_MM} mm. Resample one to the other, or correct the wrong header"
                )
                report(FaultKind.AFFINE, volume.path, message)


def corner_distance(shape: Sequence[int], difference: npt.NDArray[np.float64]) -> float:
    """Returns the largest distance, in mm, between the corner voxels of two affines with this difference (4 x 4)."""
    corners = np.array(list(product(*((0, size - 1) for size in shape))))
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def times(numbers: Sequence[float]) -> str:
    """Writes (2, 3, 4.5) as 2x3x4.5."""
    return "x".join(f"{number:.5g}" for number in numbers)
