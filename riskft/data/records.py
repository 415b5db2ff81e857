"""One subject's names and files, as a reader lists them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test", "predict")
LABELLED = ("train", "val", "test")  #: Splits whose cases need a label.


@dataclass(frozen=True)
class Case:
    """One subject's files.

    Attributes:
        subject: Identifier, unique in the data set; names all of the subject's outputs.
        images: One file per modality, in channel order: 3-D, or 4-D with ``channels``.
        label: File of integer labels on the same grid, or None.
        split: One of ``SPLITS`` if the layout states it, else None.
        channels: Index along the fourth axis of the file, for modalities in a 4-D file.
        person: The person who was scanned, if a person has several subjects (sessions): splits keep them together.
            None if the subject is the person.
    """

    subject: str
    images: Mapping[str, Path]
    label: Path | None = None
    split: str | None = None
    channels: Mapping[str, int] = field(default_factory=dict)
    person: str | None = None

    @property
    def owner(self) -> str:
        """The person who was scanned."""
        return self.subject if self.person is None else self.person

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, each once, images first."""
        return (*dict.fromkeys(self.images.values()), *([self.label] if self.label is not None else []))
