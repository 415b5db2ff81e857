"""File formats: which names are images, and one way to open them."""

import re
from pathlib import Path
from typing import Any

import nibabel as nib

from riskft.data.io.archives import FileError, true_nature
from riskft.data.io.itk import BACKENDS, ItkImage

ENDINGS = (".nii.gz", ".nii", ".hdr", ".img", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Endings of image files; ``.hdr`` and ``.img`` are a NIfTI or Analyze pair."""

_PAIR = {".hdr": ".img", ".img": ".hdr"}
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)


def ending(path: Path) -> str:
    """Returns the file's ending as spelled: one of ``ENDINGS`` in upper or lower case, else the last suffix."""
    name = path.name
    found = next((end for end in ENDINGS if name.lower().endswith(end)), None)
    return path.suffix if found is None else name[len(name) - len(found) :]


def stem(path: Path) -> str:
    """Returns the file's name without its ending."""
    return path.name[: len(path.name) - len(ending(path))]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image and not hidden (macOS archives add a ._NAME to every NAME)."""
    return path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")


def is_itk(path: Path) -> bool:
    """Whether the file is MetaImage or NRRD by its ending, which SimpleITK reads and writes."""
    return ending(path).lower() in BACKENDS


def parts(path: Path) -> list[Path]:
    """Returns all files of an image, existing or not: itself, the other one of a pair, the data file of a header."""
    end = ending(path).lower()
    if end in _PAIR:
        candidates = [path.with_suffix(other) for other in (_PAIR[end], _PAIR[end].upper())]
        return [path, next((other for other in candidates if other.is_file()), candidates[0])]
    named = _DATA_FILE.search(_start(path)) if end in (".mhd", ".nhdr") else None
    # "LIST", and patterns such as "slice%03d.raw 1 60 1", name many files: reading will report the missing ones
    if named is None or re.match(rb"LOCAL$|LIST|.*%\d*d", named[1]):
        return [path]
    return [path, path.parent / named[1].decode(errors="replace")]


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(1 << 16)
    except OSError:  # opening it will report the error
        return b""


def open_image(path: Path) -> Any:
    """Opens an image, of ``ENDINGS`` or another format that nibabel reads, and reads its header only.

    Returns nibabel's image, or an ``ItkImage``: both have shape, affine (RAS+ mm), dataobj and get_data_dtype(). Raises
    FileError if its first bytes show that it is not what its ending says, and any other error of the libraries.
    """
    try:
        return ItkImage(path) if is_itk(path) else nib.load(path)
    except Exception as error:
        if (nature := true_nature(path)) is not None:
            raise nature from error
        if "w2 should be positive" in str(error):  # nibabel's quaternions
            reason = "its qform is not a rotation: the quaternion in the header is longer than 1"
            raise FileError(reason, "Correct the header, for example by copying the sform to the qform") from error
        raise


def stored_spacing(image: Any) -> tuple[float, ...]:
    """Returns the spacing in mm as stored in an open image's header, including 0 and NaN."""
    if isinstance(image, ItkImage):
        return image.spacing
    if not isinstance(image, nib.AnalyzeImage):
        return tuple(float(edge) for edge in image.header.get_zooms()[:3])
    return tuple(abs(float(edge)) for edge in stored_header(image)["pixdim"][1:4])


def stored_header(image: nib.AnalyzeImage) -> Any:
    """Returns the header of an open Analyze or NIfTI image as stored in the file: nibabel corrects it on loading."""
    holder = image.file_map.get("header", image.file_map["image"])
    with holder.get_prepare_fileobj("rb") as stream:
        return type(image.header).from_fileobj(stream, check=False)


def spatial_shape(image: Any, channel: int | None = None) -> tuple[int, ...]:
    """Returns the three spatial sizes of an open image; trailing axes of length 1 do not count.

    ``channel`` is an index along the fourth axis, None if there must be none. Raises ValueError, without file name and
    full stop, if the image is not 3-D, or has no such channel.
    """
    full = tuple(int(size) for size in image.shape)
    while len(full) > 3 and full[-1] == 1:
        full = full[:-1]
    if len(full) < 3 or 0 in full:
        raise ValueError(f"found shape {full}, expected a 3-D volume. Export it again")
    if len(full) > (3 if channel is None else 4):
        raise ValueError(
            f"found shape {full}, expected a 3-D volume. If the fourth axis holds channels, use a reader that names "
            "them (riskft.MsdReader), otherwise save one file per volume"
        )
    channels = full[3] if len(full) == 4 else 1
    if channel is not None and not 0 <= channel < channels:
        raise ValueError(
            f"found shape {full} with {channels} channel{'' if channels == 1 else 's'}, expected one with the index "
            f"{channel}. Correct the description that the reader uses, or the file"
        )
    return full[:3]
