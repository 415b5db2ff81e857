"""The voxel grid, and smooth random fields that are the same at every voxel size."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

FloatArray = npt.NDArray[np.float32]

#: Field of view in mm of MNI space (x to the right, y forwards, z up): the ICBM152 brain and about 8 mm around it.
BOX = ((-80.0, 80.0), (-115.0, 81.0), (-76.0, 90.0))

#: Mean squared weight of a tricubic B-spline: the variance of a spline of independent unit normals.
_SPLINE_VARIANCE = (151 / 315) ** 3


@dataclass(frozen=True)
class Grid:
    """An isotropic grid of voxel centres over ``BOX``, axes towards right, front and top (RAS)."""

    spacing: float  #: Voxel size in mm.

    @property
    def axes(self) -> tuple[npt.NDArray[np.float64], ...]:
        """World coordinates in mm along x, y and z: three float64 vectors."""
        return tuple(np.arange(low, high + 1e-6, self.spacing) for low, high in BOX)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        x, y, z = self.axes
        return len(x), len(y), len(z)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4 x 4 matrix from voxel indices to mm (RAS)."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = [low for low, _ in BOX]
        return affine

    def points(self) -> FloatArray:
        """World coordinates in mm of all voxels: float32, 3 x X x Y x Z."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij")).astype(np.float32)


def smooth_noise(rng: np.random.Generator, grid: Grid, knots: float) -> FloatArray:
    """Draws a smooth random field, float32, X x Y x Z, of zero mean and (averaged over space) unit variance.

    It is a tensor product of cubic B-splines with independent normal coefficients. These depend only on ``knots``, the
    distance of the knots in mm (about the size of the structures), and the field of view, so that a seed gives the same
    field on any grid.
    """
    weights = [_spline_weights(axis, low, high, knots) for axis, (low, high) in zip(grid.axes, BOX, strict=True)]
    field = rng.standard_normal(tuple(matrix.shape[1] for matrix in weights), dtype=np.float32)
    for matrix in weights:
        # Consumes the first axis and appends the finished one. Sparse, because only 4 weights per row are not 0, and
        # because the sums of a threaded BLAS depend on the number of threads.
        flat = sparse.csr_array(matrix.astype(np.float32)) @ field.reshape(len(field), -1)
        field = np.moveaxis(flat.reshape(-1, *field.shape[1:]), 0, -1)
    return np.ascontiguousarray(field / np.float32(np.sqrt(_SPLINE_VARIANCE)))


def _spline_weights(axis: npt.NDArray[np.float64], low: float, high: float, knots: float) -> npt.NDArray[np.float64]:
    """Returns the uniform cubic B-splines' weights at each position: positions x coefficients, rows sum to 1."""
    count = int(np.ceil((high - low) / knots)) + 3
    distance = np.abs((axis[:, None] - low) / knots + 1 - np.arange(count)[None, :])
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.asarray(np.where(distance < 1, inner, outer))
