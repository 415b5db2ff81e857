"""What the data check finds in a single file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from riskft.data.findings import FaultKind, Report, WarningKind
from riskft.data.io.archives import FileError, checked_voxels
from riskft.data.io.formats import open_image, parts, spatial_shape, stored_spacing
from riskft.data.io.grid import VolumeFile, has_place, times
from riskft.data.io.itk import ItkImage
from riskft.data.io.volumes import take_channel
from riskft.errors import first_few


def open_volume(path: Path, report: Report, channels: Sequence[int | None] = (None,)) -> VolumeFile | None:
    """Reads a file's header and reports its faults; returns None if it cannot be checked further.

    The faults are: missing, unreadable, not 3-D, without one of the ``channels`` along the fourth axis, an unusable
    spacing or affine.
    """
    try:
        source, stored = _load(path)
        shape = _shape(source, channels)
    except _BrokenFile as broken:
        report(broken.kind, broken.path or path, str(broken))
        return None
    except OSError as error:
        report(FaultKind.UNREADABLE, path, f"cannot be reached ({_one_line(error)}). Check its permissions")
        return None
    affine: npt.NDArray[np.float64] = np.asarray(source.affine, dtype=np.float64)
    placed = has_place(path, stored, affine, report)
    if not placed and isinstance(source, ItkImage):
        return None  # ITK refuses to read its voxels
    if not placed or _is_weak(source):
        return VolumeFile(path, shape, stored, None, "?", source)
    spacing = tuple(float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    return VolumeFile(path, shape, spacing, affine, "".join(map(str, nib.aff2axcodes(affine))), source)


def read_voxels(
    volume: VolumeFile, report: Report, channels: Sequence[int | None] = (None,)
) -> list[npt.NDArray[Any]] | None:
    """Reads the voxels once for all channels, with scale factors applied, and reports non-finite ones.

    Returns:
        One array of ``volume.shape`` per channel, or a flat one of the finite voxels if others were dropped; None if
        the file cannot be read completely.
    """
    try:
        with checked_voxels(volume.source) as voxels:
            data = np.asanyarray(voxels)
        found = [take_channel(data, data.shape, channel).reshape(volume.shape) for channel in channels]
    except FileError as error:
        report(FaultKind.UNREADABLE, volume.path, str(error))
        return None
    # any error of a library is a fault of this file; the other files must still be checked
    except Exception as error:
        message = f"the voxels cannot be read, the file may be cut off ({_one_line(error)}). Copy it again"
        report(FaultKind.UNREADABLE, volume.path, message)
        return None
    return [_finite(voxels, volume.path, channel, report) for voxels, channel in zip(found, channels, strict=True)]


def channel_words(channel: int | None) -> str:
    """Returns the channel for a message; empty for a 3-D file."""
    return "" if channel is None else f" of channel {channel}"


def _finite(voxels: npt.NDArray[Any], path: Path, channel: int | None, report: Report) -> npt.NDArray[Any]:
    finite = np.isfinite(voxels)
    if finite.all():
        return voxels
    count = voxels.size - np.count_nonzero(finite)
    where = channel_words(channel)
    message = f"{count:,} of {voxels.size:,} voxels{where} are NaN or infinite, expected none. Set them to a number"
    report(FaultKind.NON_FINITE, path, message)
    kept: npt.NDArray[Any] = voxels[finite]
    return kept


def as_kept(
    voxels: npt.NDArray[Any], path: Path, channel: int | None, report: Report
) -> npt.NDArray[np.float32] | None:
    """Converts finite voxels to float32, as they are used later, and reports what is lost; None if unusable."""
    with np.errstate(over="ignore", under="ignore"):
        kept: npt.NDArray[np.float32] = voxels.astype(np.float32)
    where = channel_words(channel)
    if beyond := kept.size - int(np.count_nonzero(np.isfinite(kept))):
        message = (
            f"{beyond:,} of {kept.size:,} voxels{where} exceed 3.4e38, the limit of 32-bit floats. Rescale the image"
        )
        report(FaultKind.BEYOND_FLOAT, path, message)
        return None
    low, high = float(kept.min()), float(kept.max())
    if low == high:
        found = f"all voxels{where} are {low:g}"
        if voxels.min() < voxels.max():
            found = f"the voxels{where} differ by at most {float(voxels.max()) - float(voxels.min()):g}, which "
            found += f"32-bit floats cannot represent: all become {low:g}"
        report(FaultKind.CONSTANT, path, f"{found}, expected an image. Export it again or drop the case")
        return None
    levels = (high - low) / float(np.spacing(np.float32(max(abs(low), abs(high)))))
    if levels < 256 and (kept != voxels).any():
        message = (
            f"32-bit floats represent only {int(levels) + 1} of the grey levels{where} from {low:.9g} to {high:.9g}. "
            "Subtract the offset, or rescale the image"
        )
        report(WarningKind.COARSE, path, message)
    return kept


def voxel_digest(voxels: npt.NDArray[Any]) -> str:
    """Returns a digest of the voxels that does not depend on data type, file format and compression."""
    digest = hashlib.blake2b(times(voxels.shape).encode(), digest_size=16)
    digest.update(voxels.astype(np.float32, copy=False).tobytes(order="F"))
    return digest.hexdigest()


class _BrokenFile(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, kind: FaultKind, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.path = path


def _load(path: Path) -> tuple[Any, tuple[float, ...]]:
    """Returns the open image and the spacing in mm as stored in the header."""
    if not path.is_file():
        found = f"there is no such file; {_around(path)}. Add it, correct its name, or drop the case"
        raise _BrokenFile(FaultKind.MISSING, found)
    if not path.stat().st_size:
        raise _BrokenFile(FaultKind.UNREADABLE, "the file is empty (0 bytes), expected an image. Copy it again")
    for part in parts(path):
        if not part.is_file():
            message = f"there is no such file, but {path.name} needs it. Add it or drop the case"
            raise _BrokenFile(FaultKind.MISSING, message, part)
    try:
        source = open_image(path)
        return source, stored_spacing(source)
    except FileError as error:
        raise _BrokenFile(FaultKind.UNREADABLE, str(error)) from error
    # as in read_voxels
    except Exception as error:
        message = f"cannot be read as an image ({_one_line(error)}). Copy it again or convert it"
        raise _BrokenFile(FaultKind.UNREADABLE, message) from error


def _shape(source: Any, channels: Sequence[int | None]) -> tuple[int, ...]:
    if (kind := source.get_data_dtype().kind) not in "iufb":
        stored = "complex numbers" if kind == "c" else "colours"
        raise _BrokenFile(FaultKind.UNREADABLE, f"stores {stored}, expected one number per voxel. Convert it")
    try:
        shapes = [spatial_shape(source, channel) for channel in channels]
    except ValueError as error:
        raise _BrokenFile(FaultKind.NOT_3D, str(error)) from error
    return shapes[0]


def _is_weak(source: Any) -> bool:
    # in nibabel, NIfTI derives from Analyze
    return isinstance(source, nib.AnalyzeImage) and not isinstance(source, nib.Nifti1Pair)


def _around(path: Path) -> str:
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which does not exist"
    if not path.parent.is_dir():
        return "its folder does not exist either"
    held = sorted(entry.name for entry in path.parent.iterdir())
    return f"its folder holds {', '.join(first_few(held, 6)) or 'nothing'}"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
