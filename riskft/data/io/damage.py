"""Finds damaged files of the cache and the risk store, and names their subject."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib

from riskft.errors import InputError


def is_whole(path: Path) -> bool:
    """Whether an uncompressed NIfTI file or a ``.npz`` archive is complete, without reading its voxels.

    A NIfTI file must be as long as its header says. An archive must end with its table of contents.
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
            "creates them again, and the training continues.",
            [f"{path}: {'truncated or damaged' if path.exists() else 'no longer there'}" for path in broken],
        )


@contextmanager
def files_named(subject: str, files: Sequence[Path]) -> Iterator[None]:
    """Turns any error that a damaged uncompressed NIfTI file causes into an InputError that names it."""
    check_whole(subject, files)  # because SimpleITK reads a truncated file without an error
    try:
        yield
    except Exception:
        check_whole(subject, files)
        raise
