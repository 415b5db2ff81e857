"""Resamples from the prepared grid to the scan's own."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from riskft.data.io.formats import open_image, spatial_shape
from riskft.data.io.resample import beyond, resampled
from riskft.data.io.volumes import Affine, write_volume
from riskft.data.records import Case


def reference_image(case: Case) -> Path:
    """Returns the file that sets the geometry of the case's outputs: its first modality."""
    return next(iter(case.images.values()))


def native_grid(case: Case) -> tuple[tuple[int, ...], Affine]:
    """Returns the shape (X, Y, Z) and affine (4, 4) of the case's own images."""
    name, path = next(iter(case.images.items()))
    image = open_image(path)
    return spatial_shape(image, case.channels.get(name)), np.asarray(image.affine, dtype=np.float64)


def native_dtype(case: Case) -> np.dtype[np.generic]:
    """Returns the stored data type of the case's first modality, in native byte order."""
    stored: np.dtype[np.generic] = open_image(reference_image(case)).get_data_dtype().newbyteorder("=")
    return stored


def to_native(volume: Tensor, affine: Affine, case: Case) -> Tensor:
    """Resamples (C, X, Y, Z) linearly to the scan's own grid, float32; 0 where the scan was cropped.

    Apart from the crop, the prepared grid, with its voxel-to-mm affine (4, 4), covers the scan; voxels at the border
    get the nearest prepared value.
    """
    shape, own = native_grid(case)
    result = resampled(volume.detach().float(), affine, shape, own)
    result[:, beyond(volume.shape[1:], affine, shape, own)] = 0
    return result


def write_native(path: Path, array: npt.NDArray[np.generic], case: Case) -> None:
    """Writes an array, (X, Y, Z) or (X, Y, Z, C), on the scan's own grid, with its affine and NIfTI codes and units.

    The path's ending selects the format, see ``riskft.data.io.formats.ENDINGS``.
    """
    _, affine = native_grid(case)
    write_volume(path, array, affine, like=reference_image(case))
