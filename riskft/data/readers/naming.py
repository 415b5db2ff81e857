"""Names and paths in the descriptions of data sets."""

import re
from pathlib import Path, PureWindowsPath

from riskft.errors import InputError

NIFTI = (".nii.gz", ".nii")


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
