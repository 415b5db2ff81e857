"""A folder of unlabelled scans, for prediction."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskft.data.io.formats import ENDINGS, ending, is_image, stem
from riskft.data.readers.base import Reader
from riskft.data.records import Case
from riskft.errors import InputError, first_few, refuse

_SEPARATORS = ("_", "-")
_NUMBERED = re.compile(r".+_\d{4}$")


class UnlabelledReader(Reader):
    """Unlabelled scans, found by their names only.

    One modality: every image file is a case, ``scan7.mha`` the subject scan7; if all names end in ``_0000``, the
    subject is what precedes it. Several modalities: ``<subject>_0000.nii.gz``, ``<subject>_0001.nii.gz`` in their
    order, as in nnU-Net, or ``<subject>_<modality>.nii.gz`` (or ``-``, in upper or lower case). Or one folder per
    case: ``<subject>/<modality>.nii.gz`` or ``<subject>/<subject>_<modality>.nii.gz``.

    Hidden files, files that are not images, and further images of a case with several modalities or with a folder are
    skipped.

    Args:
        root: The folder that holds the files, or the folders of the cases.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also if names follow several conventions, or an image has two files.
        """
        if not self.root.is_dir():
            raise InputError(f"{self.root} is not a folder: give the folder that holds the scans.")
        files = _images(self.root)
        folders = {
            folder: held
            for folder in sorted(self.root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".") and (held := _images(folder))
        }
        if files and folders:
            raise InputError(
                f"{self.root} holds both images ({_some(files)}) and folders of images ({_some(folders)}), expected "
                "only one of the two. Move one of them away."
            )
        if not files and not folders:
            held = sorted(path for path in self.root.iterdir() if not path.name.startswith("."))
            raise InputError(
                f"{self.root} holds no image (found: {_some(held) or 'nothing'}), nor does a folder in it: expected "
                f"files that end in {', '.join(ENDINGS)}."
            )
        if folders:
            found = [file for folder, held in folders.items() for file in _of_folder(folder, held, modalities)]
        elif len(modalities) == 1:
            found = _of_one(self.root, files, modalities[0])
        else:
            found = _of_several(self.root, files, modalities)
        subjects: dict[str, dict[str, Path]] = {}
        twice = []
        for file in found:
            path = subjects.setdefault(file.subject, {}).setdefault(file.modality, file.path)
            if path != file.path:
                twice.append(f"{path} and {file.path} are both {file.modality} of {file.subject}; keep one")
        refuse(f"{self.root} has several files for one image:", twice)
        return [
            Case(subject, {name: images[name] for name in modalities}) for subject, images in sorted(subjects.items())
        ]


@dataclass(frozen=True)
class _File:
    """The parts of a name; the file exists or is expected."""

    subject: str
    modality: str
    path: Path


def _images(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if is_image(path) and not path.is_dir())
    headers = {stem(path) for path in files if ending(path).lower() == ".hdr"}
    return [path for path in files if ending(path).lower() != ".img" or stem(path) not in headers]


def _of_folder(folder: Path, files: Sequence[Path], modalities: Sequence[str]) -> list[_File]:
    prefixes = ("", *(f"{folder.name}{separator}".lower() for separator in _SEPARATORS))
    found = [
        _File(folder.name, modality, path)
        for path in files
        for modality in modalities
        if stem(path).lower() in [f"{prefix}{modality.lower()}" for prefix in prefixes]
    ]
    like = found[0] if found else _File(folder.name, "", folder / f"{ending(files[0])}")
    return found + _missing(found, like, {name: name for name in modalities})


def _of_one(root: Path, files: Sequence[Path], modality: str) -> list[_File]:
    for end in ("_0000", *(f"{separator}{modality}" for separator in _SEPARATORS)):
        alike = [stem(path).lower().endswith(end.lower()) for path in files]
        if any(alike) and not all(alike):
            one, other = files[alike.index(True)].name, files[alike.index(False)].name
            raise InputError(
                f"{root} holds {one}, which ends in {end}, and {other}, which does not: expected only files of the "
                f"modality {modality}, named alike. Move the others away, or list the files in a table "
                "(riskft.ManifestReader)."
            )
    # the number of the only channel is not part of the subject
    return [_File(stem(path).removesuffix("_0000") or stem(path), modality, path) for path in files]


def _of_several(root: Path, files: Sequence[Path], modalities: Sequence[str]) -> list[_File]:
    numbered = [path for path in files if _NUMBERED.match(stem(path))]
    names = {name: name for name in modalities}
    if len(numbered) == len(files):
        names = {name: f"{channel:04d}" for channel, name in enumerate(modalities)}
    found: dict[str, list[_File]] = {}
    others = []
    for path in files:
        if (file := _parsed(path, names)) is not None:
            found.setdefault(file.subject, []).append(file)
        else:
            others.append(path)
    starts = tuple(f"{subject}{separator}" for subject in found for separator in _SEPARATORS)
    # a further image of a case is fine, but not a further channel, because then the order may differ
    if strange := [path for path in others if numbered or not path.name.startswith(starts)]:
        known = [file.path for files in found.values() for file in files]
        expected = ", ".join(f"<subject>_{name}" for name in names.values())
        beside = f" beside {_some(known)}" if known else ""
        numbers = ", ".join(f"<subject>_{channel:04d}" for channel in range(len(names)))
        raise InputError(
            f"{root} holds {_some(strange)}{beside}; expected {expected} (or {numbers}) for the {len(names)} "
            f"modalities {', '.join(modalities)}. Add the missing files, and rename or remove the others."
        )
    return [file for held in found.values() for file in [*held, *_missing(held, held[0], names)]]


def _parsed(path: Path, names: Mapping[str, str]) -> _File | None:
    """Splits a file's name into subject, separator and modality; None if it does not fit."""
    own = stem(path)
    # the longest first, because one name may end in another
    for modality, name in sorted(names.items(), key=lambda item: -len(item[1])):
        subject = own[: len(own) - len(name) - 1]
        if subject and own.lower().endswith(tuple(f"{separator}{name}".lower() for separator in _SEPARATORS)):
            return _File(subject, modality, path)
    return None


def _missing(found: Sequence[_File], like: _File, names: Mapping[str, str]) -> list[_File]:
    """Returns the missing files of a case, named like an existing one."""
    own = stem(like.path)
    prefix = own[: len(own) - len(names.get(like.modality, ""))]
    return [
        _File(like.subject, modality, like.path.with_name(f"{prefix}{name}{ending(like.path)}"))
        for modality, name in names.items()
        if modality not in {file.modality for file in found}
    ]


def _some(paths: Iterable[Path]) -> str:
    return ", ".join(first_few(path.name for path in paths))
