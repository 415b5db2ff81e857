"""Names that readers make of what a data set says."""

import re
from pathlib import Path

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
