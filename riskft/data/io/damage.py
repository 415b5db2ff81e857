"""Telling damaged files of the cache or the risk store from other faults, and naming their subject."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib

from riskft.errors import InputError


def is_whole(path: Path) -> bool:
    """Says whether an uncompressed NIfTI file or a ``.npz`` archive is complete, without reading its voxels.

    A NIfTI file is as long as its header says. An archive ends with its table of contents.
    """
    if path.suffix == ".npz":
        return zipfile.is_zipfile(path)
    try:
        image = nib.load(path)
        voxels = math.prod(image.shape) * image.dataobj.dtype.itemsize
        return bool(path.stat().st_size >= int(image.dataobj.offset) + voxels)
    except Exception:  # nibabel and the OS each have their own classes for a broken file
        return False


def check_whole(subject: str, files: Sequence[Path]) -> None:
    """Raises InputError naming the files of a subject that are not whole (see ``is_whole``)."""
    broken = [path for path in files if not is_whole(path)]
    if broken:
        raise InputError(
            f"{subject}: its preprocessed files changed during the run. Start again with --ckpt_path last: riskft "
            "makes them again, and the training goes on.",
            [f"{path}: {'truncated or damaged' if path.exists() else 'no longer there'}" for path in broken],
        )


@contextmanager
def files_named(subject: str, files: Sequence[Path]) -> Iterator[None]:
    """Turns any error that a damaged file causes into an InputError that names it; other errors pass.

    Args:
        subject: Whose files they are.
        files: The uncompressed NIfTI files that the block reads.
    """
    check_whole(subject, files)  # before too: SimpleITK reads a truncated file without an error
    try:
        yield
    except Exception:
        check_whole(subject, files)
        raise
