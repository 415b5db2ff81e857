"""The folder layout of the iSeg challenges."""

import re
from collections.abc import Sequence
from pathlib import Path

from riskft.data.readers.base import Reader
from riskft.data.records import Case
from riskft.errors import InputError, refuse

_MODALITIES = ("t1", "t2")
_FILE = re.compile(r"(subject-(\d+))-(t1|t2|label)\.(hdr|img|nii|nii\.gz)$", re.IGNORECASE)


class IsegReader(Reader):
    """iSeg-2017 and iSeg-2019: ``subject-1-T1.hdr`` with ``.img``, ``subject-1-T2`` and ``subject-1-label``.

    Names may be in upper or lower case, ``.nii`` and ``.nii.gz`` work as well, and the files may be in folders below
    the root. An Analyze pair is given by its ``.hdr``. Subjects are sorted by number: subject-2 precedes subject-10.

    A subject without a label file gets the label None, as the challenge's test subjects; if the root's or the
    subject's folder has "training" in its name, it gets the expected path, so that the check reports the missing label.

    Args:
        root: The folder that holds the files or their folders.
    """

    known_labels = frozenset({0, 10, 150, 250})

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by the subject's number; see ``Reader.cases``.

        Raises:
            InputError: Also if an image has two files, in two folders or two formats.
        """
        if unknown := [name for name in modalities if name not in _MODALITIES]:
            raise InputError(f"IsegReader has no modality {unknown}: it has {list(_MODALITIES)}.")
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder: set the reader's root to the folder of the subjects.")
        subjects = self._subjects()
        if not subjects:
            raise InputError(f"{self.root} holds no file such as subject-1-T1.hdr, nor does any folder below it.")
        return [self._case(subject, files, modalities) for subject, files in subjects.items()]

    def _subjects(self) -> dict[str, dict[str, Path]]:
        found: dict[tuple[int, str], dict[str, set[Path]]] = {}
        for path in self.root.rglob("*"):
            if match := _FILE.match(path.name):
                subject, number, kind, ending = match.groups()
                # an image without its header still makes a case; the check reports the missing header
                file = path.with_suffix(".hdr") if ending.lower() == "img" else path
                found.setdefault((int(number), subject.lower()), {}).setdefault(kind.lower(), set()).add(file)
        twice = [
            f"{subject} {kind} has {len(files)} files: {', '.join(map(str, sorted(files)))}; keep one, or set the root "
            "to one of the folders"
            for (_, subject), kinds in sorted(found.items())
            for kind, files in kinds.items()
            if len(files) > 1
        ]
        refuse(f"{self.root} has several files for one image:", twice)
        return {
            subject: {kind: file for kind, files in kinds.items() for file in files}
            for (_, subject), kinds in sorted(found.items())
        }

    def _case(self, subject: str, files: dict[str, Path], modalities: Sequence[str]) -> Case:
        sample = next(iter(files.values()))
        ending = ".nii.gz" if sample.name.endswith(".nii.gz") else sample.suffix
        promised = any("training" in folder.name.lower() for folder in (self.root, sample.parent))
        images = {name: files.get(name, sample.with_name(f"{subject}-{name.upper()}{ending}")) for name in modalities}
        label = files.get("label", sample.with_name(f"{subject}-label{ending}") if promised else None)
        return Case(subject, images, label)
