"""Telling a broken file of the cache or the risk store from other faults, and naming its subject."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import torchio as tio

from riskft.data.io.memory import give_back
from riskft.errors import InputError


def is_whole(path: Path) -> bool:
    """Whether an uncompressed NIfTI file (or a ``.npz`` archive) is there and whole; its voxels are not read.

    A NIfTI file is as long as its header says, an archive has its table of contents, which is at its end.
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
            f"{subject}: its preprocessed files have been changed during the run. Start again with --ckpt_path last: "
            "they are made anew, and the training goes on.",
            [f"{path}: {'truncated or damaged' if path.exists() else 'no longer there'}" for path in broken],
        )


@contextmanager
def files_named(subject: str, files: Sequence[Path]) -> Iterator[None]:
    """Turns whatever a broken file causes into an InputError that names it; other errors pass.

    Args:
        subject: Whose files they are.
        files: The uncompressed NIfTI files that are read inside.
    """
    check_whole(subject, files)  # before too: SimpleITK reads a truncated file without a word
    try:
        yield
    except Exception:
        check_whole(subject, files)
        raise


class NamedSubjects(tio.SubjectsDataset):  # type: ignore[misc]
    """TorchIO's dataset, whose errors name the subject and the file that has become unreadable."""

    def __getitem__(self, index: int) -> tio.Subject:
        """Loads and transforms a subject."""
        give_back()  # of the volume before
        subject = self.dry_iter()[int(index)]
        with files_named(subject["name"], [Path(image.path) for image in subject.get_images(intensity_only=False)]):
            return super().__getitem__(index)
