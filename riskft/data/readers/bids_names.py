"""File names of BIDS: entities such as ``acq-highres``, then a suffix such as ``T1w``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskft.data.io.formats import stem
from riskft.data.readers.naming import is_nifti

_ENTITY = re.compile(r"([A-Za-z0-9]+)-([^_]+)_")


@dataclass(frozen=True)
class BidsName:
    """What a file's name says.

    Attributes:
        path: The file.
        entities: For example ``{"sub": "01", "acq": "highres"}``.
        suffix: What is left behind them, for example ``T1w``.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str


def parse(path: Path) -> BidsName:
    """Takes a file's name apart."""
    entities, suffix = parse_stem(stem(path))
    return BidsName(path, entities, suffix)


def parse_stem(text: str) -> tuple[dict[str, str], str]:
    """Takes a name without its ending apart: the entities at its front, and the suffix."""
    entities = {}
    while match := _ENTITY.match(text):
        entities[match[1]] = match[2]
        text = text[match.end() :]
    return entities, text


def images_in(folder: Path, unit: Mapping[str, str]) -> list[BidsName]:
    """Lists the NIfTI files of a subject or session by name.

    Args:
        folder: Its ``anat`` folder; one that is not there holds nothing.
        unit: The entities ``sub`` and perhaps ``ses`` that the names must have.
    """
    if not folder.is_dir():
        return []
    names = [parse(path) for path in sorted(folder.iterdir()) if is_nifti(path.name)]
    return [name for name in names if all(name.entities.get(key) == value for key, value in unit.items())]


def fitting(names: Iterable[BidsName], suffix: str, entities: Mapping[str, str]) -> list[BidsName]:
    """Picks the files of a suffix, in upper or lower case.

    Args:
        names: The files.
        suffix: For example ``t1w``.
        entities: Values that the names must have, where there is a choice: a file that lacks an entity is taken if no
            other file has its value. An empty value is for names without the entity.
    """
    found = [
        name
        for name in names
        if name.suffix.casefold() == suffix.casefold()
        and all(name.entities.get(key, value) == value for key, value in entities.items())
    ]
    exact = [name for name in found if all(name.entities.get(key, "") == value for key, value in entities.items())]
    return exact or found


def listing(names: Sequence[BidsName]) -> str:
    """Writes the names of files, separated by commas."""
    return ", ".join(name.path.name for name in names)
