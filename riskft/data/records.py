"""What a reader knows of one subject: names and files, nothing loaded yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test", "predict")


@dataclass(frozen=True)
class Case:
    """One subject's files.

    Attributes:
        subject: Identifier, unique in the data set; names all of the subject's outputs.
        images: One 3-D file per modality, in the order in which channels are stacked.
        label: File of integer labels on the same grid, or None where there is none.
        split: One of ``SPLITS`` if the layout states it, else None.
    """

    subject: str
    images: Mapping[str, Path]
    label: Path | None = None
    split: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, images first."""
        return (*self.images.values(), *([self.label] if self.label is not None else []))
