"""BIDS file names (entities such as ``acq-highres``, then a suffix such as ``T1w``) and tables of labels."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskft.data.io.formats import stem
from riskft.data.labels import LabelMap
from riskft.data.readers.naming import class_name, is_nifti
from riskft.errors import InputError, refuse
from riskft.files import read_table

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


def read_lookup(path: Path) -> LabelMap:
    """Reads a table such as ``dseg.tsv``: tabs, a header with ``index`` and ``name``, one line per label.

    The index 0 is background, whatever its name. White space and slashes in names become ``_``. Raises InputError if
    columns are missing, or for all invalid lines.
    """
    (_, header), *lines = read_table(path, "\t") or [(0, [])]
    header = [name.strip() for name in header]
    if missing := [name for name in ("index", "name") if name not in header]:
        raise InputError(f"{path} has no column {missing} among {header}: BIDS requires index and name, and tabs.")
    problems = []
    classes: dict[str, list[int]] = {}
    for number, cells in lines:
        row = dict(zip(header, cells, strict=False))
        index, name = (row.get(key, "").strip() for key in ("index", "name"))
        key = class_name(name)
        if not index.isdecimal() or not name:
            problems.append(f"line {number}: index '{index}' and name '{name}', expected a whole number and a name")
        elif int(index) and (key in classes or [int(index)] in classes.values()):
            problems.append(f"line {number}: '{name}' or {index} occurs twice, expected one line for each")
        elif int(index):
            classes[key] = [int(index)]
    refuse(f"{path} is not usable:", problems)
    return LabelMap(classes)
