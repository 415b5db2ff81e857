"""Finds where a patch's voxels lie in the volume before TorchIO's flips, affine transforms and elastic deformation.

TorchIO warps whole volumes, image by image. Here the same transforms give the coordinates of one patch, with which all
images are sampled. Several transforms are composed, so that a volume is interpolated once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK
import torch
import torchio as tio
from torch import Tensor
from torch.nn import functional

from riskft.data.io.volumes import Affine

_LPS = np.diag([-1.0, -1, 1, 1])  # from the axes of NIfTI to those of ITK, and back
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a volume, with the methods that TorchIO's transforms call."""

    shape: tuple[int, ...]
    affine: Affine

    def get_center(self, lps: bool = False) -> Array:
        """Returns the centre in mm."""
        centre: Array = nib.affines.apply_affine(self.affine, (np.array(self.shape) - 1) / 2)
        return nib.affines.apply_affine(_LPS, centre) if lps else centre

    def is_2d(self) -> bool:
        """Whether there is one slice."""
        return self.shape[-1] == 1


class Warp:
    """Maps the voxels of the warped volume to those of the original volume.

    The transforms are TorchIO's ``Flip``, ``Affine`` and, after these, at most one ``ElasticDeformation``.
    """

    def __init__(self, transforms: Sequence[tio.Transform], grid: Grid) -> None:
        self.shape = grid.shape
        self.interpolates = not all(isinstance(transform, tio.Flip) for transform in transforms)
        # a voxel goes through ``inner``, the elastic deformation and ``outer`` to its place before the transforms
        self.outer, self.inner = np.eye(4), np.eye(4)
        self.elastic: _Elastic | None = None
        for transform in reversed(transforms):  # backwards, from the warped volume to the original one
            if isinstance(transform, tio.ElasticDeformation):
                self.inner, self.outer = self.outer, np.eye(4)
                self.elastic = _Elastic(transform, grid)
            else:
                self.outer = _voxels_before(transform, grid) @ self.outer
        affine = [transform for transform in transforms if isinstance(transform, tio.Affine)]
        # values outside the volume, for which only an affine transform has options
        self.pad_value: str | float = affine[0].default_pad_value if affine else "minimum"
        self.pad_label: float | None = affine[0].default_pad_label if affine else None

    def forward(self, voxel: Sequence[int]) -> Array:
        """Returns approximately where a voxel of the original volume lies after the warp, (3,)."""
        point = nib.affines.apply_affine(np.linalg.inv(self.outer), np.asarray(voxel, dtype=np.float64))
        if self.elastic is not None:
            ends = [torch.tensor([value], dtype=torch.float64) for value in point]
            point = point - self.elastic.displacement(ends).flatten().numpy()
        return nib.affines.apply_affine(np.linalg.inv(self.inner), point)  # type: ignore[no-any-return]

    def reach(self, start: Sequence[int], size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Returns the box, start and stop, of the original volume that a patch of the warped one is sampled from."""
        half = (np.asarray(size) - 1) / 2
        centre, reach = _through(self.inner, np.asarray(start) + half, half)
        if self.elastic is not None:
            reach = reach + self.elastic.limit
        centre, reach = _through(self.outer, centre, reach)
        # one voxel more for interpolation; a box outside the volume becomes the voxels at its border
        low = np.clip(np.floor(centre - reach) - 1, 0, np.array(self.shape) - 1)
        high = np.clip(np.ceil(centre + reach) + 2, low + 1, self.shape)
        return low.astype(int).tolist(), high.astype(int).tolist()

    def coordinates(self, start: Sequence[int], size: Sequence[int]) -> Tensor:
        """Returns the original voxel coordinates that each voxel of a patch comes from, (3, X, Y, Z) float32."""
        axes = [
            torch.arange(first, first + count, dtype=torch.float64) for first, count in zip(start, size, strict=True)
        ]
        if self.elastic is None:
            return _affine_of_axes(self.outer @ self.inner, axes)
        # ``inner`` holds flips only
        axes = [self.inner[k, k] * axis + self.inner[k, 3] for k, axis in enumerate(axes)]
        moved = _affine_of_axes(self.outer, axes)
        turned = torch.from_numpy(self.outer[:3, :3]) @ self.elastic.displacement(axes).flatten(1)
        return moved + turned.float().view_as(moved)


def sample(volume: Tensor, coordinates: Tensor, mode: str) -> Tensor:
    """Samples (C, X, Y, Z) float32 at voxel coordinates, (3, *P), clamped to the border. Returns (C, *P)."""
    # torch's coordinates are z, y, x, in [-1, 1] from the first voxel's centre to the last one's
    ends = [max(1, edge - 1) for edge in volume.shape[1:]]
    normed = torch.stack([coordinates[k] * (2 / ends[k]) - 1 for k in (2, 1, 0)], -1)
    result: Tensor = functional.grid_sample(
        volume[None], normed[None], mode, padding_mode="border", align_corners=True
    )[0]
    return result


def outside(coordinates: Tensor, shape: Sequence[int]) -> Tensor:
    """Whether coordinates, (3, *P), are more than half a voxel outside a volume, as in ITK; (*P) bool."""
    beyond = torch.zeros(coordinates.shape[1:], dtype=torch.bool)
    for axis, edge in zip(coordinates, shape, strict=True):
        low, high = axis.aminmax()
        if low < -0.5:
            beyond |= axis < -0.5
        if high > edge - 0.5:
            beyond |= axis > edge - 0.5
    return beyond


class _Elastic:
    """The displacements of an elastic deformation: a cubic B-spline over the whole volume."""

    def __init__(self, transform: tio.ElasticDeformation, grid: Grid) -> None:
        to_lps = _LPS @ grid.affine
        spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
        image = SimpleITK.Image(grid.shape, SimpleITK.sitkUInt8)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((to_lps[:3, :3] / spacing).flatten().tolist())
        image.SetOrigin(to_lps[:3, 3].tolist())
        points = transform.control_points.astype(np.float64)
        if grid.is_2d():
            points[..., -1] = 0
        self._mesh = [count - 3 for count in points.shape[:3]]
        spline = SimpleITK.BSplineTransformInitializer(image, self._mesh)
        domain = np.eye(4)
        domain[:3, :3] = np.array(spline.GetTransformDomainDirection()).reshape(3, 3)
        domain[:3, 3] = spline.GetTransformDomainOrigin()
        meshes = np.diag([*np.array(self._mesh) / spline.GetTransformDomainPhysicalDimensions(), 1])
        to_mesh = meshes @ np.linalg.inv(domain) @ to_lps  # voxels to the spline's own coordinates
        self._axis = np.abs(to_mesh[:3, :3]).argmax(1)  # the volume's axis along each axis of the spline
        self._scale = to_mesh[range(3), self._axis], to_mesh[:3, 3]
        mm_to_voxels = np.linalg.inv(to_lps[:3, :3])
        order = [int(number) for number in np.argsort(self._axis)]
        moved = points @ mm_to_voxels.T  # in voxels
        self._points = torch.from_numpy(np.ascontiguousarray(np.transpose(moved, (3, *order))))
        self.limit: Array = np.abs(moved).reshape(-1, 3).max(0)  # a spline stays within its control points

    def displacement(self, axes: Sequence[Tensor]) -> Tensor:
        """Returns displacements in voxels, (3, X, Y, Z) float64, on the grid of coordinates along x, y and z."""
        field = self._points
        for axis in range(3):
            (along,) = np.flatnonzero(self._axis == axis)
            place = self._scale[0][along] * axes[axis] + self._scale[1][along]
            weights = _spline_weights(place, self._mesh[along])
            field = torch.movedim(torch.tensordot(field, weights, dims=([axis + 1], [1])), -1, axis + 1)
        return field


def _spline_weights(place: Tensor, meshes: int) -> Tensor:
    """Returns the weights of cubic B-splines at coordinates in [0, meshes], (N, meshes + 3); 0 outside."""
    first = place.floor().clamp(0, meshes - 1)
    t = place - first
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = torch.zeros(len(place), meshes + 3, dtype=place.dtype)
    weights.scatter_(1, first.long()[:, None] + torch.arange(4), torch.stack(parts, 1) / 6)
    return weights * ((place >= 0) & (place <= meshes))[:, None]


def _voxels_before(transform: tio.Transform, grid: Grid) -> Array:
    """Returns the matrix, (4, 4), from a voxel after a flip or an affine transform to the voxel before it."""
    if isinstance(transform, tio.Flip):
        matrix = np.eye(4)
        for axis in transform.axes:
            matrix[axis, axis], matrix[axis, 3] = -1, grid.shape[axis] - 1
        return matrix
    mapping = transform.get_affine_transform(grid)
    corners = np.vstack([np.zeros(3), np.eye(3)])
    origin, *ends = (np.array(mapping.TransformPoint(corner.tolist())) for corner in corners)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.stack(ends, 1) - origin[:, None], origin
    to_lps = _LPS @ grid.affine
    result: Array = np.linalg.inv(to_lps) @ matrix @ to_lps
    return result


def _through(matrix: Array, centre: Any, half: Any) -> tuple[Array, Array]:
    """Returns the centre and half the edges of the bounding box of a box after an affine map."""
    return nib.affines.apply_affine(matrix, centre), np.abs(matrix[:3, :3]) @ half


def _affine_of_axes(matrix: Array, axes: Sequence[Tensor]) -> Tensor:
    """Returns the coordinates that an affine map, (4, 4), gives for a grid, (3, X, Y, Z) float32."""
    x, y, z = (torch.from_numpy(matrix[:3, k : k + 1]) * axis for k, axis in enumerate(axes))
    plane = (x[:, :, None] + (y + torch.from_numpy(matrix[:3, 3:]))[:, None, :]).float()
    return plane[..., None] + z.float()[:, None, None, :]
