"""What the data check can find: faults, which prevent training, and warnings, which do not."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class FaultKind(str, Enum):
    """Faults of a data set."""

    MISSING = "missing file"
    UNREADABLE = "unreadable file"
    NOT_3D = "not 3-D"
    SHAPE = "shapes differ"
    AFFINE = "affines differ"
    GEOMETRY = "unusable geometry"
    NON_FINITE = "NaN or infinite voxels"
    BEYOND_FLOAT = "values beyond 32-bit floats"
    CONSTANT = "constant image"
    NON_INTEGER = "label values not whole"
    OUTSIDE_MAP = "label values in no class"
    EMPTY_FOREGROUND = "no foreground"
    DUPLICATE_SUBJECT = "subject twice"
    LEAKAGE = "same image in two splits"
    PERSON_LEAKAGE = "person in two splits"
    NO_LABEL = "no label"
    TOO_LARGE = "too large after resampling"
    TOO_FEW_PATCHES = "too few patches"


class WarningKind(str, Enum):
    """Oddities of a data set that do not prevent training."""

    HEADER = "header that programs read differently"
    SIZE = "unlikely size"
    COARSE = "few grey levels"
    EMPTY_FOREGROUND = "no foreground"
    CROPPED = "label in the background"
    ALL_IGNORED = "nothing but ignored voxels"
    VISITS = "visits in two splits"
    EMPTY_SPLIT = "no training case"


@dataclass(frozen=True)
class Finding:
    """One fault or warning."""

    kind: FaultKind | WarningKind  #: Says whether it is a fault or a warning, too.
    subject: str  #: The subject, or the split.
    path: Path | None  #: The file, or None if it is not about one.
    message: str  #: One line: which file, what was found, what was expected, what to do.

    @property
    def is_fault(self) -> bool:
        """Whether it must be corrected before training."""
        return isinstance(self.kind, FaultKind)

    def __str__(self) -> str:
        return f"{self.subject}: {self.kind.value}: {self.message}"


#: Takes a finding's kind, its file, and its message without the file name and the full stop.
Report = Callable[[FaultKind | WarningKind, Path, str], None]
