"""What the data check finds in one file by itself."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from riskft.data.check_grid import Report, Volume, has_place, times
from riskft.data.check_report import FaultKind


def open_volume(path: Path, report: Report) -> Volume | None:
    """Reads a file's header.

    Args:
        path: NIfTI, Analyze, or what else nibabel reads.
        report: Called with each fault: missing, unreadable, not 3-D, unusable spacing or affine.

    Returns:
        The volume, or None if it cannot be looked at any further.
    """
    try:
        source, stored = _load(path)
        shape = _spatial_shape(source)
    except _BrokenFile as broken:
        report(broken.kind, broken.path or path, str(broken))
        return None
    except OSError as error:
        report(FaultKind.UNREADABLE, path, f"cannot be reached ({_one_line(error)}). Check its permissions")
        return None
    affine: npt.NDArray[np.float64] = np.asarray(source.affine, dtype=np.float64)
    if not has_place(path, stored, affine, report) or _is_weak(source):
        return Volume(path, shape, stored, None, "?", source)
    spacing = tuple(float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(path, shape, spacing, affine, "".join(map(str, nib.aff2axcodes(affine))), source)


def read_voxels(volume: Volume, report: Report) -> npt.NDArray[Any] | None:
    """Reads the voxels, scale factors applied, and reports those that are not finite.

    Returns:
        Array of ``volume.shape``, or a flat one of the finite voxels if others were dropped; None if the file cannot
        be read to its end.
    """
    try:
        voxels: npt.NDArray[Any] = np.asanyarray(volume.source.dataobj).reshape(volume.shape)
    # whatever a broken file makes nibabel raise is that file's fault, and the other files are still to be looked at
    except Exception as error:
        message = f"the voxels cannot be read, the file may be cut off ({_one_line(error)}). Copy it again"
        report(FaultKind.UNREADABLE, volume.path, message)
        return None
    finite = np.isfinite(voxels)
    if finite.all():
        return voxels
    count = voxels.size - np.count_nonzero(finite)
    message = f"{count:,} of {voxels.size:,} voxels are NaN or infinite, expected none. Set them to a number"
    report(FaultKind.NON_FINITE, volume.path, message)
    kept: npt.NDArray[Any] = voxels[finite]
    return kept


def voxel_digest(voxels: npt.NDArray[Any]) -> str:
    """Returns a digest that is the same for the same voxels, whatever their data type, file and compression."""
    digest = hashlib.blake2b(times(voxels.shape).encode(), digest_size=16)
    digest.update(voxels.astype(np.float32).tobytes(order="A"))
    return digest.hexdigest()


class _BrokenFile(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, kind: FaultKind, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.path = path


def _load(path: Path) -> tuple[Any, tuple[float, ...]]:
    """Returns nibabel's image and the spacing in mm as the header has it."""
    if not path.is_file():
        found = f"there is no such file; {_around(path)}. Add it, correct its name, or drop the case"
        raise _BrokenFile(FaultKind.MISSING, found)
    if not path.stat().st_size:
        raise _BrokenFile(FaultKind.UNREADABLE, "the file is empty (0 bytes), expected an image. Copy it again")
    try:
        source = nib.load(path)
        pixels = Path(source.file_map["image"].filename)
        spacing = _stored_spacing(source)
    # as in read_voxels
    except Exception as error:
        message = f"cannot be read as NIfTI or Analyze ({_one_line(error)}). Copy it again or convert it"
        raise _BrokenFile(FaultKind.UNREADABLE, message) from error
    if not pixels.is_file():
        message = f"there is no such file, but its header {path.name} is there. Add it or drop the case"
        raise _BrokenFile(FaultKind.MISSING, message, pixels)
    return source, spacing


def _stored_spacing(source: Any) -> tuple[float, ...]:
    # nibabel repairs a spacing of 0 while it loads, so the header is read once more
    if not isinstance(source, nib.AnalyzeImage):
        return tuple(float(edge) for edge in source.header.get_zooms()[:3])
    holder = source.file_map.get("header", source.file_map["image"])
    with holder.get_prepare_fileobj("rb") as stream:
        header = type(source.header).from_fileobj(stream, check=False)
    return tuple(abs(float(edge)) for edge in header["pixdim"][1:4])


def _spatial_shape(source: Any) -> tuple[int, ...]:
    if (kind := source.get_data_dtype().kind) not in "iufb":
        stored = "complex numbers" if kind == "c" else "colours"
        raise _BrokenFile(FaultKind.UNREADABLE, f"stores {stored}, expected one number per voxel. Convert it")
    full = tuple(int(size) for size in source.shape)
    if len(full) < 3 or any(size != 1 for size in full[3:]) or 0 in full:
        message = f"has the shape {times(full)}, expected 3 axes. Save one file for each volume"
        raise _BrokenFile(FaultKind.NOT_3D, message)
    return full[:3]


def _is_weak(source: Any) -> bool:
    # in nibabel, NIfTI derives from Analyze
    return isinstance(source, nib.AnalyzeImage) and not isinstance(source, nib.Nifti1Pair)


def _around(path: Path) -> str:
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which is not there"
    if not path.parent.is_dir():
        return "its folder is not there either"
    held = sorted(entry.name for entry in path.parent.iterdir())
    more = f" and {len(held) - 6} more" if len(held) > 6 else ""
    return f"its folder holds {', '.join(held[:6]) or 'nothing'}{more}"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
