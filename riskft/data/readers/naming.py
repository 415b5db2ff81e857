"""Names, paths and people in the descriptions of data sets."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from riskft.data.records import Case
from riskft.errors import InputError, first_few

NIFTI = (".nii.gz", ".nii")

_KNOWN = (
    # BraTS 2023 and later: patient, then time point (BraTS-GLI-00005-100, BraTS-MEN-RT-0000-1)
    re.compile(r"(BraTS\d*-.*[a-z]-\d+)-\d+", re.IGNORECASE),
    # BraTS 2019 and before: centre, patient, then scan (BraTS19_CBICA_AAB_1, brats_tcia_pat153_181)
    re.compile(r"(brats(?:1\d)?_[^_]+_(?!training_|validation_|testing_)[^_]+)_\d+", re.IGNORECASE),
    # BIDS, which starts with the subject (sub-01_ses-2_run-1), and sessions named as in BIDS (P1_ses-2)
    re.compile(r"(sub-[^_]+)_.+", re.IGNORECASE),
    re.compile(r"(.+?)_ses-.+", re.IGNORECASE),
)


def class_name(text: str) -> str:
    """Makes a label's name usable for metrics, columns and options: no white space, no slashes."""
    return re.sub(r"[\s/\\]+", "_", text.strip())


def is_subject(name: str) -> bool:
    """Whether files can have this name."""
    return bool(name) and not name.startswith(".") and not any(sign in name for sign in "/\\")


def is_nifti(name: str) -> bool:
    """Whether a file is NIfTI by its name; macOS archives add a ``._NAME`` to every NAME."""
    return name.endswith(NIFTI) and not name.startswith(".")


def either_nifti(path: Path) -> Path:
    """Returns the path, or the one with the other NIfTI ending if only that exists."""
    other = path.with_name(path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"{path.name}.gz")
    return other if is_nifti(path.name) and not path.exists() and other.exists() else path


def listed_name(text: str) -> str:
    """Returns the file name of a path in a description, with either kind of slash."""
    return PureWindowsPath(text).name


def is_absolute(text: str) -> bool:
    """Whether a path in a description starts at a root or a drive, of any system."""
    return bool(PureWindowsPath(text).anchor)


def listed_path(root: Path, text: str) -> Path:
    r"""Returns the file, existing or not, of a path in a description in ``root``, as written on any system.

    The path has ``/`` or ``\``, and may start with ``./`` or be absolute. An absolute one that does not exist comes
    from another machine: its last parts, two or more, are looked up below the root. The file has the other NIfTI ending
    if only that exists. Raises InputError if no file can have this name.
    """
    if "\0" in text:
        raise InputError(f"{text!r} in {root} holds a NUL byte, which no file name can: correct it.")
    path = PureWindowsPath(text)
    direct = either_nifti(root / text)
    if direct.exists() or not path.anchor:
        return direct if direct.exists() else either_nifti(root.joinpath(*path.parts))
    names = path.parts[1:]
    below = [either_nifti(root.joinpath(*names[start:])) for start in range(len(names) - 1)]
    return next((found for found in below if found.exists()), direct)


class People:
    r"""Finds the person in the names of subjects.

    Args:
        pattern: A regular expression such as ``^(sub-\d+)``: the person is its first group, or the whole match if the
            group is missing or does not match. Without a pattern, the identifiers of BraTS (``BraTS-GLI-00005-100``,
            ``BraTS19_CBICA_AAB_1``) and BIDS (``sub-01_ses-2``) are understood, and any other subject is a person.

    Raises:
        InputError: If the pattern is not a regular expression.
    """

    def __init__(self, pattern: str | None = None) -> None:
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"The reader's person is '{pattern}', which is not a regular expression ({error}). Give one that "
                r"finds the person in a subject's name, such as '^(sub-\d+)'."
            ) from error

    def of(self, subject: str) -> str | None:
        """Returns the person in a subject's name; None if the name does not say."""
        if self._pattern is None:
            return next((match[1] for known in _KNOWN if (match := known.fullmatch(subject))), None)
        match = self._pattern.search(subject)
        if match is None:
            return None
        return (match[1] if self._pattern.groups and match[1] is not None else match[0]) or None

    def find(self, cases: Sequence[Case]) -> list[Case]:
        """Returns the cases with their person; raises InputError if the pattern finds none in some names."""
        found = [replace(case, person=self.of(case.subject)) for case in cases]
        strange = [case.subject for case in found if case.person is None]
        if self._pattern is not None and strange:
            raise InputError(
                f"The reader's person is '{self._pattern.pattern}', which finds no person in {len(strange)} of "
                f"{len(found)} subjects: {', '.join(first_few(strange))}. Correct the "
                "pattern; add '|.+' at its end if each of these subjects is a person."
            )
        return with_one_spelling(found)


def with_one_spelling(cases: Sequence[Case]) -> list[Case]:
    """Returns the cases with one spelling per person, because P01 and p01 are hardly two people.

    If any case names its person, subjects that are the person are included.
    """
    if all(case.person is None for case in cases):
        return list(cases)
    spelling: dict[str, str] = {}
    for owner in sorted({case.owner for case in cases}):
        spelling.setdefault(owner.casefold(), owner)
    return [
        case if spelling[case.owner.casefold()] == case.owner else replace(case, person=spelling[case.owner.casefold()])
        for case in cases
    ]
