"""Finds damaged files of the cache and the risk store, and names their subject."""

import math
import os
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
        with path.open("rb") as stream:
            # not nib.load, because phase 1 checks each file several times
            header = nib.Nifti1Header(stream.read(nib.Nifti1Header.sizeof_hdr), check=False)
            length = stream.seek(0, os.SEEK_END)
        voxels = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        return bool(length >= header.get_data_offset() + voxels)
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
