"""Reading and writing volumes with their geometry."""

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.files import atomic_path

Affine = npt.NDArray[np.float64]


def read_volume(path: Path) -> tuple[npt.NDArray[np.generic], Affine]:
    """Reads a 3-D volume (trailing axes of length 1 are dropped), scale factors applied.

    Args:
        path: NIfTI or Analyze file.

    Returns:
        The array (X, Y, Z) in its stored or scaled dtype, and its voxel-to-mm affine (4, 4).

    Raises:
        InputError: If the file cannot be read or is not 3-D.
    """
    try:
        image = nib.load(path)
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel, zlib and the OS each have their own classes for a broken file
        raise InputError(f"{path}: cannot be read ({error}). Copy the file again, or remove the case.") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(
            f"{path}: found shape {array.shape}, expected a 3-D volume. Split it into one file a modality."
        )
    return array, np.asarray(image.affine, dtype=np.float64)


def write_nifti(path: Path, array: npt.NDArray[np.generic], affine: Affine, like: Path | None = None) -> None:
    """Writes a NIfTI file atomically.

    Args:
        path: Target, ``.nii`` or ``.nii.gz``.
        array: (X, Y, Z) or (X, Y, Z, C).
        affine: Voxel-to-mm, (4, 4).
        like: An image whose header (units, qform and sform codes) is taken over, so that viewers overlay the two.
    """
    header = None
    if like is not None:
        header = nib.Nifti1Header.from_header(nib.load(like).header, check=False)
        header.set_data_dtype(array.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(array, affine, header), temporary)


def as_channel_last(tensor: Tensor) -> npt.NDArray[np.generic]:
    """Turns (C, X, Y, Z) into NIfTI's (X, Y, Z, C)."""
    return np.ascontiguousarray(torch.movedim(tensor, 0, -1).cpu().numpy())
