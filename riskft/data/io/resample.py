"""Resamples from one voxel grid to another without losing voxels at the border.

TorchIO's ``Resample`` rounds a grid's size down and fills what lies past its end with a default value. Here the new
grid covers the whole scan, and the outermost voxels' values extend beyond their centres.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from riskft.data.io.volumes import Affine

Indices = npt.NDArray[np.int64]
"""Three voxel indices."""

_TOLERANCE = 1e-3
"""In voxels, and as a fraction of a spacing: above the float32 rounding of headers, below anything visible."""


def covering_grid(shape: Sequence[int], affine: Affine, spacing: Sequence[float]) -> tuple[tuple[int, ...], Affine]:
    """Returns the smallest grid with a spacing in mm that covers a whole scan, with the scan's axes and centre.

    An axis that already has the spacing keeps its voxels. The scan is given by its shape and its voxel-to-mm affine,
    (4, 4).
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
    """Returns the first and last voxels of a target grid that touch a box on another grid with the same axes."""
    matrix, offset = _places(target, affine)
    start = np.floor(np.diag(matrix) * (first - 0.5) + offset + 0.5 + _TOLERANCE)
    end = np.ceil(np.diag(matrix) * (last + 0.5) + offset - 0.5 - _TOLERANCE)
    return np.maximum(start, 0).astype(np.int64), np.maximum(end, 0).astype(np.int64)


def resampled(volume: Tensor, affine: Affine, shape: Sequence[int], target: Affine, *, nearest: bool = False) -> Tensor:
    """Resamples a volume (C, X, Y, Z) to (C, *shape); voxels outside it get the value of its nearest voxel.

    ``affine`` and ``target`` are the voxel-to-mm affines, (4, 4), of the volume and of the wanted grid. The
    interpolation is linear, or ``nearest``, as labels need. The dtype stays the same.
    """
    matrix, offset = _places(affine, target)
    shape = tuple(shape)
    order: Literal[0, 1] = 0 if nearest else 1
    reverse = volume.stride(1) < volume.stride(3)  # x fastest, as in files: SciPy is fast along the last axis
    if reverse:
        matrix, offset, shape, volume = matrix[::-1, ::-1], offset[::-1], shape[::-1], volume.permute(0, 3, 2, 1)
    result = torch.empty((len(volume), *shape), dtype=volume.dtype)
    for channel, out in zip(volume.detach().cpu().numpy(), result.numpy(), strict=True):
        ndimage.affine_transform(channel, matrix, offset, shape, output=out, order=order, mode="nearest")
    return result.permute(0, 3, 2, 1) if reverse else result


def beyond(shape: Sequence[int], affine: Affine, target_shape: Sequence[int], target: Affine) -> Tensor:
    """Returns which voxels of a target grid have their centre outside another grid: bool of ``target_shape``."""
    matrix, offset = _places(affine, target)
    indices = np.ogrid[tuple(slice(size) for size in target_shape)]
    outside = np.zeros(tuple(target_shape), dtype=bool)
    for size, row, start in zip(shape, matrix, offset, strict=True):
        # usually only one factor is not 0, and the sum is one-dimensional
        place = sum((factor * index for factor, index in zip(row, indices, strict=True) if factor), np.asarray(start))
        outside |= (place < -0.5 - _TOLERANCE) | (place > size - 0.5 + _TOLERANCE)
    return torch.from_numpy(outside)


def _places(affine: Affine, target: Affine) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns matrix and offset from target indices to the other grid's, without the rounding errors of headers."""
    places = np.linalg.solve(affine, target)
    return np.round(places[:3, :3], 6), np.round(places[:3, 3], 4)
