"""From one voxel grid to another, such that no voxel at the border is lost.

TorchIO's ``Resample`` rounds a grid's size down and gives what then lies past its end a default value. Here a grid of
another spacing covers the whole scan, and beyond the centres of the outermost voxels their own values go on.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from riskft.data.io.volumes import Affine

Indices = npt.NDArray[np.int64]
"""Three voxel indices."""

_TOLERANCE = 1e-3
"""In voxels, and as a part of a spacing: more than the rounding in a header's float32, less than anyone can see."""


def covering_grid(shape: Sequence[int], affine: Affine, spacing: Sequence[float]) -> tuple[tuple[int, ...], Affine]:
    """Returns the smallest grid of a spacing that covers a whole scan, with the scan's axes and centre.

    An axis that has its spacing already keeps its voxels.

    Args:
        shape: The scan's voxels along each axis.
        affine: The scan's voxel-to-mm affine, (4, 4).
        spacing: Wanted voxel size in mm along the scan's axes.

    Returns:
        Shape and affine (4, 4) of the grid.
    """
    sizes, scale = [], []
    for size, own, wanted in zip(shape, np.linalg.norm(affine[:3, :3], axis=0), spacing, strict=True):
        same = abs(own - wanted) <= _TOLERANCE * wanted
        sizes.append(size if same else max(1, int(np.ceil(size * own / wanted - _TOLERANCE))))
        scale.append(1.0 if same else wanted / own)
    if scale == [1.0, 1.0, 1.0]:
        return tuple(shape), affine
    result = affine.copy()
    result[:3, :3] *= scale
    middle, new_middle = ((np.asarray(part, dtype=np.float64) - 1) / 2 for part in (shape, sizes))
    result[:3, 3] = affine[:3, :3] @ middle + affine[:3, 3] - result[:3, :3] @ new_middle
    return tuple(sizes), result


def covering_box(first: Indices, last: Indices, affine: Affine, target: Affine) -> tuple[Indices, Indices]:
    """Returns the first and last voxels of a grid that touch a box of voxels on another with the same axes.

    Args:
        first: The box's first voxel.
        last: Its last voxel.
        affine: Affine (4, 4) of the grid on which the box is given.
        target: Affine of the grid that is asked about.
    """
    matrix, offset = _places(target, affine)
    start = np.floor(np.diag(matrix) * (first - 0.5) + offset + 0.5 + _TOLERANCE)
    end = np.ceil(np.diag(matrix) * (last + 0.5) + offset - 0.5 - _TOLERANCE)
    return np.maximum(start, 0).astype(np.int64), np.maximum(end, 0).astype(np.int64)


def resampled(volume: Tensor, affine: Affine, shape: Sequence[int], target: Affine, *, nearest: bool = False) -> Tensor:
    """Resamples a volume; outside it each voxel gets the value of the volume's nearest one.

    Args:
        volume: (C, X, Y, Z).
        affine: Its voxel-to-mm affine, (4, 4).
        shape: Voxels of the wanted grid.
        target: The wanted grid's affine.
        nearest: Take the nearest voxel, as labels need it, rather than interpolate linearly.

    Returns:
        (C, *shape) of the volume's type.
    """
    matrix, offset = _places(affine, target)
    result = torch.empty((len(volume), *shape), dtype=volume.dtype)
    for channel, out in zip(volume.detach().cpu().numpy(), result.numpy(), strict=True):
        if nearest:
            ndimage.affine_transform(channel, matrix, offset, tuple(shape), output=out, order=0, mode="nearest")
        else:
            ndimage.affine_transform(channel, matrix, offset, tuple(shape), output=out, order=1, mode="nearest")
    return result


def beyond(shape: Sequence[int], affine: Affine, target_shape: Sequence[int], target: Affine) -> Tensor:
    """Returns which voxels of a grid have their centre outside the voxels of another.

    Args:
        shape: Voxels of the other grid.
        affine: Its affine, (4, 4).
        target_shape: Voxels of the grid that is asked about.
        target: Its affine.

    Returns:
        bool of ``target_shape``.
    """
    matrix, offset = _places(affine, target)
    indices = np.ogrid[tuple(slice(size) for size in target_shape)]
    outside = np.zeros(tuple(target_shape), dtype=bool)
    for size, row, start in zip(shape, matrix, offset, strict=True):
        # usually only one is not 0, and the sum a line
        place = sum((factor * index for factor, index in zip(row, indices, strict=True) if factor), np.asarray(start))
        outside |= (place < -0.5 - _TOLERANCE) | (place > size - 0.5 + _TOLERANCE)
    return torch.from_numpy(outside)


def _places(affine: Affine, target: Affine) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns matrix and offset from indices of the target grid to the other's, without the rounding of headers."""
    places = np.linalg.solve(affine, target)
    return np.round(places[:3, :3], 6), np.round(places[:3, 3], 4)
