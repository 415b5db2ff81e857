"""What a reader knows of one subject: names and files, nothing loaded yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "val", "test", "predict")
LABELLED = ("train", "val", "test")
"""Splits whose cases need a label."""


@dataclass(frozen=True)
class Case:
    """One subject's files.

    Attributes:
        subject: Identifier, unique in the data set; names all of the subject's outputs.
        images: One file per modality, in the order in which channels are stacked: 3-D, or 4-D with ``channels``.
        label: File of integer labels on the same grid, or None where there is none.
        split: One of ``SPLITS`` if the layout states it, else None.
        channels: Index along the fourth axis of the file, for modalities that lie in a 4-D one.
        person: Whose scans these are, where a person has several (sessions): splits keep them together. None if the
            subject is the person.
    """

    subject: str
    images: Mapping[str, Path]
    label: Path | None = None
    split: str | None = None
    channels: Mapping[str, int] = field(default_factory=dict)
    person: str | None = None

    @property
    def owner(self) -> str:
        """The person whom the scans are of."""
        return self.subject if self.person is None else self.person

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, each once, images first."""
        return (*dict.fromkeys(self.images.values()), *([self.label] if self.label is not None else []))
