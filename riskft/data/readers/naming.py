"""Names that readers make of what a data set says."""

import re
from pathlib import Path, PureWindowsPath

from riskft.errors import InputError

_NIFTI = (".nii.gz", ".nii")


def class_name(text: str) -> str:
    """Turns a label's name into one that metrics, columns and options can bear: no white space, no slashes."""
    return re.sub(r"[\s/\\]+", "_", text.strip())


def is_subject(name: str) -> bool:
    """Tells whether files can be named after it."""
    return bool(name) and not name.startswith(".") and not any(sign in name for sign in "/\\")


def is_nifti(name: str) -> bool:
    """Tells whether a file is NIfTI by its name; macOS archives add a ``._NAME`` to every NAME."""
    return name.endswith(_NIFTI) and not name.startswith(".")


def either_nifti(path: Path) -> Path:
    """Returns the path, or the one with the other NIfTI ending if only that is there."""
    other = path.with_name(path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"{path.name}.gz")
    return other if is_nifti(path.name) and not path.exists() and other.exists() else path


def listed_name(text: str) -> str:
    """Returns the name of the file that a description lists, whichever separators the path has."""
    return PureWindowsPath(text).name


def is_absolute(text: str) -> bool:
    """Tells whether a path in a description starts at a root or a drive, here or on another system."""
    return bool(PureWindowsPath(text).anchor)


def listed_path(root: Path, text: str) -> Path:
    r"""Returns the file that a description means by a path, as programs of any system write it.

    Args:
        root: The description's folder, which paths are relative to.
        text: With ``/`` or ``\``, with or without ``./``, or absolute. An absolute path that is not there comes from
            another machine, and stands for what its last parts, two or more, name below the root if that is there.

    Returns:
        The file, there or not; with the other NIfTI ending if only that one is there.

    Raises:
        InputError: If no file can have this name.
    """
    if "\0" in text:
        raise InputError(f"{text!r} in {root} holds a NUL byte, which the name of no file does: correct it.")
    path = PureWindowsPath(text)
    direct = either_nifti(root / text)
    if direct.exists() or not path.anchor:
        return direct if direct.exists() else either_nifti(root.joinpath(*path.parts))
    names = path.parts[1:]
    below = [either_nifti(root.joinpath(*names[start:])) for start in range(len(names) - 1)]
    return next((found for found in below if found.exists()), direct)
