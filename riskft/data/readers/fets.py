"""The folder layouts of FeTS and BraTS."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from riskft.data.readers.base import Reader
from riskft.data.readers.naming import NIFTI, People, is_nifti
from riskft.data.records import Case
from riskft.errors import InputError

_GRADES = ("HGG", "LGG")
_SUBJECT = re.compile(r"(brats|fets)\S*\d$", re.IGNORECASE)


class FetsReader(Reader):
    """FeTS 2021/2022 and BraTS 2018 to 2021: ``<root>/<ID>/<ID>_{t1,t1ce,t2,flair,seg}.nii.gz``.

    ``.nii`` works as well, and the ``HGG/`` and ``LGG/`` folders of BraTS 2018 and 2019 may lie between the root and
    the cases. If ``<ID>_seg`` is missing, the only file with "seg" in its name is used, in upper or lower case
    (BraTS20_Training_355 has ``W39_1998.09.19_Segm.nii``).

    A case without a label file gets the label None, as in the official validation folders. If the layout promises a
    label ("training" in the case's or the root's name, or a grade folder), it gets the expected path, so that the
    check reports the missing label.

    A folder is a case if it holds NIfTI files, or if it is named like a case (``BraTS20_Training_001``) and holds no
    folders; other folders and loose files are skipped.

    Up to BraTS 2019, identifiers end in the number of the patient's scan (``BraTS19_CBICA_AAB_1``); a patient's scans
    stay in one split.

    Args:
        root: The folder that holds the case folders, or ``HGG`` and ``LGG``.
        person: A regular expression that finds the person in a case's name, for other names; see ``MsdReader``.
    """

    known_labels = frozenset({0, 1, 2, 4})

    #: End of a file's name, after the subject and before ``.nii.gz``, by modality.
    images: Mapping[str, str] = {"t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "flair": "_flair"}
    label = "_seg"  #: End of the label file's name.

    def __init__(self, root: str | Path, person: str | None = None) -> None:
        self.root = Path(root)
        self.people = People(person)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``."""
        if unknown := [name for name in modalities if name not in self.images]:
            raise InputError(f"{type(self).__name__} has no modality {unknown}: it has {list(self.images)}.")
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder: set the reader's root to the folder that holds the cases.")
        folders = self._folders()
        if not folders:
            held = sorted(path.name for path in self.root.iterdir())[:5]
            raise InputError(
                f"{self.root} holds no case folder such as BraTS20_Training_001 (found first: {held}): "
                "set the reader's root to the folder that holds the case folders."
            )
        return self.people.find([self._case(folder, modalities) for folder in folders])

    def _folders(self) -> list[Path]:
        groups = [self.root, *(self.root / grade for grade in _GRADES if (self.root / grade).is_dir())]
        found = [path for group in groups for path in group.iterdir() if path.name not in _GRADES and _is_case(path)]
        return sorted(found, key=lambda path: path.name)

    def _case(self, folder: Path, modalities: Sequence[str]) -> Case:
        names = sorted(path.name for path in folder.iterdir() if is_nifti(path.name))
        # expect missing files with the ending of the others
        ending = ".nii" if names and not any(name.endswith(".gz") for name in names) else ".nii.gz"

        def file(suffix: str) -> Path:
            here = [folder / f"{folder.name}{suffix}{end}" for end in NIFTI]
            return next((path for path in here if path.name in names), folder / f"{folder.name}{suffix}{ending}")

        label: Path | None = file(self.label)
        if label is not None and label.name not in names:
            alike = [name for name in names if "seg" in name.lower()]
            if len(alike) == 1:
                label = folder / alike[0]
            elif not alike and not self._promises_label(folder):
                label = None
        return Case(folder.name, {name: file(self.images[name]) for name in modalities}, label)

    def _promises_label(self, folder: Path) -> bool:
        if "validation" in folder.name.lower():
            return False
        return folder.parent.name in _GRADES or any(
            "training" in name.lower() for name in (folder.name, self.root.name)
        )


class Brats2023Reader(FetsReader):
    """BraTS 2023 and later: ``<root>/<ID>/<ID>-{t1n,t1c,t2w,t2f,seg}.nii.gz``; otherwise like ``FetsReader``.

    The modalities keep the names t1, t1ce, t2 and flair, so that one config works for both. Enhancing tumour is 3, no
    longer 4. BraTS 2024 adds 4 for the resection cavity: add it to ``labels`` if it occurs.

    Identifiers end in the patient's time point (``BraTS-GLI-00005-100``); a patient's scans stay in one split.
    """

    known_labels = frozenset({0, 1, 2, 3})

    images: Mapping[str, str] = {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f"}
    label = "-seg"


def _is_case(path: Path) -> bool:
    if not path.is_dir() or path.name.startswith((".", "_")):
        return False
    entries = list(path.iterdir())
    named = _SUBJECT.match(path.name) is not None and not any(entry.is_dir() for entry in entries)
    return named or any(is_nifti(entry.name) for entry in entries)
