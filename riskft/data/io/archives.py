"""Compressed image files: comparing the archive's checksum, and files whose content does not match their name.

nibabel reads only as much of an archive as an image needs, and never reaches the checksum at its end.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 16
_MOST = 1 << 28  # bytes of voxels that are read at once
_STARTS = {
    b"version https://git-lfs": ("it is a Git LFS pointer", "Fetch the image with `git lfs pull`"),
    b"/annex/objects/": ("it is a git-annex pointer", "Fetch the image with `git annex get`"),
    b"PK\x03\x04": ("it is a zip archive", "Unpack it"),
    b"<!doctype html": ("it is a web page, probably from a failed download", "Download the image again"),
    b"<html": ("it is a web page, probably from a failed download", "Download the image again"),
}


class FileError(ValueError):
    """A file that cannot be read; the message follows the file's name and has no full stop.

    Args:
        reason: What is wrong with it.
        remedy: What to do, without the full stop.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"cannot be read ({reason}). {remedy}")


@contextmanager
def checked_voxels(image: Any) -> Iterator[Any]:
    """Yields the voxels of an open image, and compares the checksum of its gzip archive when the block ends.

    They are an array-like that can be sliced, with scale factors applied. Raises FileError if the archive is cut off,
    or its content does not match the stored checksum or length. Bytes after a valid archive are ignored, as ``gzip``
    does.
    """
    proxy = image.dataobj
    path = str(getattr(proxy, "file_like", ""))
    if not isinstance(proxy, ArrayProxy) or not path.lower().endswith((".gz", ".mgz")):
        yield proxy
        return
    form = (proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter)
    if (whole := _at_once(path, form, proxy.order)) is not None:
        yield whole
        return
    with gzip.open(path) as stream:
        try:
            yield ArrayProxy(stream, form, mmap=False, order=proxy.order)
            _read_to_end(stream)
        except EOFError as error:
            raise _cut_off() from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(error) from error


def _at_once(path: str, form: tuple[Any, ...], order: Any) -> npt.NDArray[Any] | None:
    """Returns the voxels of an intact archive of one part and without scale factors, much faster than a stream."""
    shape, dtype, offset, *scale = form
    count = math.prod(shape)
    if scale != [1, 0] or count * dtype.itemsize > _MOST:
        return None
    try:
        content = zlib.decompress(Path(path).read_bytes(), wbits=31, bufsize=offset + count * dtype.itemsize + 1)
    except zlib.error:  # reading the stream tells what is wrong
        return None
    if len(content) < offset + count * dtype.itemsize:
        return None
    voxels: npt.NDArray[Any] = np.frombuffer(content, dtype, count, offset).reshape(shape, order=order)
    return voxels


def _cut_off() -> FileError:
    return FileError("it is cut off, the compressed voxels are incomplete", "Copy it again")


def _damaged(error: Exception) -> FileError:
    return FileError(f"it is damaged, its content does not match its checksum: {error}", "Copy it again")


def _read_to_end(stream: gzip.GzipFile) -> None:
    try:
        while stream.read(_BLOCK):
            pass
    except gzip.BadGzipFile as error:
        # other bytes follow; the checksum of the archive before them has been compared
        if not str(error).startswith("Not a gzipped file"):
            raise


def check_deflated(stream: BinaryIO) -> None:
    """Reads a zlib or gzip stream from the current position to its end, and compares its checksum.

    Raises:
        FileError: If it is cut off, or its content does not match the stored checksum.
    """
    inflate = zlib.decompressobj(wbits=47)  # zlib or gzip
    try:
        while not inflate.eof:
            if not (block := stream.read(_BLOCK)):
                raise _cut_off()
            inflate.decompress(block)
    except zlib.error as error:
        raise _damaged(error) from error


def true_nature(path: Path) -> FileError | None:
    """Returns what an unreadable file really is, if its first bytes tell."""
    start = _start(path)
    name = path.name
    if start[:2] == _GZIP and not name.lower().endswith("gz"):
        remedy = f"Rename it to {name}.gz" if name.lower().endswith(".nii") else "Unpack it"
        return FileError("it is compressed with gzip, but its name does not end in .gz", remedy)
    if name.lower().endswith(".gz") and _is_nifti(start):
        reason = "it is not compressed, though its name ends in .gz"
        return FileError(reason, f"Rename it to {name[:-3]}, or compress it")
    if start[128:132] == b"DICM":
        return FileError("it is a DICOM file", "Convert the series to NIfTI, for example with dcm2niix")
    found = (words for begin, words in _STARTS.items() if start.lower().startswith(begin.lower()))
    return next((FileError(*words) for words in found), None)


def _is_nifti(start: bytes) -> bool:
    # the header begins with its own length, in either byte order
    return len(start) >= 4 and bool({348, 540} & {int(np.frombuffer(start[:4], order)[0]) for order in ("<i4", ">i4")})


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(512)
    except OSError:  # the reader reports it
        return b""
