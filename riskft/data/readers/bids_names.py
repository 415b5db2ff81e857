"""BIDS file names: entities such as ``acq-highres``, then a suffix such as ``T1w``."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskft.data.io.formats import stem
from riskft.data.readers.naming import is_nifti

_ENTITY = re.compile(r"([A-Za-z0-9]+)-([^_]+)_")


@dataclass(frozen=True)
class BidsName:
    """The parts of a file's name."""

    path: Path  #: The file.
    entities: Mapping[str, str]  #: For example ``{"sub": "01", "acq": "highres"}``.
    suffix: str  #: The rest, for example ``T1w``.


def parse(path: Path) -> BidsName:
    """Splits a file's name."""
    entities, suffix = parse_stem(stem(path))
    return BidsName(path, entities, suffix)


def parse_stem(text: str) -> tuple[dict[str, str], str]:
    """Splits a name without its ending into entities and suffix."""
    entities = {}
    while match := _ENTITY.match(text):
        entities[match[1]] = match[2]
        text = text[match.end() :]
    return entities, text


def images_in(folder: Path, unit: Mapping[str, str]) -> list[BidsName]:
    """Lists the NIfTI files in an ``anat`` folder, which need not exist, whose names have the entities of ``unit``."""
    if not folder.is_dir():
        return []
    names = [parse(path) for path in sorted(folder.iterdir()) if is_nifti(path.name)]
    return [name for name in names if all(name.entities.get(key) == value for key, value in unit.items())]


def fitting(names: Iterable[BidsName], suffix: str, entities: Mapping[str, str]) -> list[BidsName]:
    """Selects the files with a suffix, in upper or lower case.

    A file without an entity is selected only if no file has its value. An empty value selects names without the entity.
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
    """Joins the names of files with commas."""
    return ", ".join(name.path.name for name in names)
