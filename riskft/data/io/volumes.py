"""Reads and writes volumes with their geometry."""

import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.io.archives import FileError, checked_voxels
from riskft.data.io.formats import ending, is_itk, open_image, spatial_shape, stored_spacing
from riskft.data.io.itk import write_itk
from riskft.errors import InputError
from riskft.files import atomic_path

Affine = npt.NDArray[np.float64]


def read_volume(path: Path, channel: int | None = None) -> tuple[npt.NDArray[np.generic], Affine]:
    """Reads a 3-D volume (trailing axes of length 1 are dropped) with scale factors applied.

    ``channel`` is an index along the fourth axis, or into vector pixels; None for a 3-D file. Returns the array (X, Y,
    Z) in its stored or scaled dtype, and its voxel-to-mm affine (4, 4), RAS+. Raises InputError if the file cannot be
    read or is damaged, is not 3-D (or has no such channel), does not store numbers, or has no usable spacing or affine.
    """
    try:
        image = open_image(path)
        spacing = stored_spacing(image)
    except Exception as error:  # nibabel, zlib and the OS each have their own classes for a broken file
        raise _unreadable(path, error) from error
    try:
        shape = spatial_shape(image, channel)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    if image.get_data_dtype().kind not in "iufb":
        raise InputError(f"{path}: stores complex numbers or colours, expected one number per voxel. Convert it.")
    if not np.isfinite(spacing).all() or 0 in spacing:
        raise InputError(f"{path}: the header's spacing is {spacing} mm, expected numbers above 0. Correct the header.")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(f"{path}: the affine is singular or not finite: {affine[:3].tolist()}. Correct the header.")
    try:
        with checked_voxels(image) as voxels:
            array = take_channel(voxels, image.shape, channel).reshape(shape)
    except Exception as error:
        raise _unreadable(path, error) from error
    return array, affine


def take_channel(data: Any, shape: tuple[int, ...], channel: int | None) -> npt.NDArray[Any]:
    """Reads one channel of an open image's ``dataobj`` with the given shape; all of it if ``channel`` is None."""
    if channel is None or len(shape) < 4:
        return np.asanyarray(data)
    return np.asanyarray(data[:, :, :, channel])


def write_nifti(
    path: Path,
    array: npt.NDArray[np.generic],
    affine: Affine,
    like: Path | None = None,
    description: str = "",
    window: tuple[float, float] | None = None,
) -> None:
    """Writes an array (X, Y, Z) or (X, Y, Z, C), with its voxel-to-mm affine (4, 4), as NIfTI, atomically.

    The header (units, qform and sform codes) is copied from the image ``like``, so that viewers overlay the two. The
    description says what the values are, in up to 79 characters; empty keeps that of ``like``. Viewers show the values
    of the window from black to white.
    """
    image = nib.Nifti1Image(array, affine, None if like is None else _header_like(like, array, affine))
    if description:
        image.header["descrip"] = description
    if window is not None:
        image.header["cal_min"], image.header["cal_max"] = window
    with atomic_path(path) as temporary:
        if path.suffix != ".nii" or not array.T.flags.c_contiguous:
            nib.save(image, temporary)
            return
        image.header.set_slope_inter(1, 0)
        with temporary.open("wb") as stream:  # equal to nibabel's file, without its copy of the voxels
            image.header.write_to(stream)
            stream.write(bytes(image.header.get_data_offset() - stream.tell()))
            stream.write(np.ascontiguousarray(array.T).data)


def write_volume(path: Path, array: npt.NDArray[np.generic], affine: Affine, like: Path) -> None:
    """Writes an image in the format of the path's ending; each of its files is written atomically.

    The endings are ``.nii``, ``.nii.gz``, ``.hdr`` or ``.img`` (a pair), ``.mha``, ``.mhd``, ``.nrrd`` and ``.nhdr``;
    the array is (X, Y, Z) or (X, Y, Z, C). The header of the image ``like`` is copied if the formats allow it.
    """
    if ending(path).lower() in (".nii", ".nii.gz"):
        write_nifti(path, array, affine, like)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # a folder, because some formats have several files that refer to each other by name
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        if is_itk(path):
            write_itk(temporary, array, affine)
        else:
            _save_pair(temporary, array, affine, like)
        # the path itself last, so that it never exists without the others
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == temporary):
            os.replace(file, path.parent / file.name)


def _header_like(like: Path, array: npt.NDArray[np.generic], affine: Affine) -> nib.Nifti1Header:
    if is_itk(like):  # scanner coordinates in mm
        header = nib.Nifti1Header()
        header.set_data_shape(array.shape)
        header.set_qform(affine, code=1)
        header.set_sform(affine, code=1)
        header.set_xyzt_units("mm")
    else:
        header = nib.Nifti1Header.from_header(nib.load(like).header, check=False)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return header


def _save_pair(path: Path, array: npt.NDArray[np.generic], affine: Affine, like: Path) -> None:
    source = None if is_itk(like) else nib.load(like)
    if isinstance(source, nib.AnalyzeImage) and not isinstance(source, nib.Nifti1Pair):
        # Analyze stays Analyze: programs place such files differently, but then the same way for both
        header = source.header.copy()
        header.set_data_dtype(array.dtype)
        nib.save(type(source)(array, affine, header), path)
        if not like.with_suffix(".mat").is_file():
            path.with_suffix(".mat").unlink(missing_ok=True)
    else:
        nib.save(nib.Nifti1Pair(array, affine, _header_like(like, array, affine)), path)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileError):
        return InputError(f"{path}: {error}.")
    reason = " ".join(str(error).split())
    return InputError(f"{path}: cannot be read ({reason}). Copy the file again, or remove the case.")


def write_channels(path: Path, tensor: Tensor, affine: Affine) -> None:
    """Writes (C, X, Y, Z) atomically as float16, which NIfTI does not support, into an ``.npz``."""
    with atomic_path(path) as temporary:
        np.savez(temporary, channels=tensor.cpu().half().numpy(), affine=affine)


def read_channels(path: Path) -> tuple[Tensor, Affine]:
    """Reads what ``write_channels`` wrote: (C, X, Y, Z) float32, and the affine."""
    with np.load(path) as content:
        return torch.from_numpy(content["channels"].astype(np.float32)), content["affine"]
