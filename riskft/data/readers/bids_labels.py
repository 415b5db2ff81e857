"""The classes in the look-up table of a BIDS segmentation."""

from pathlib import Path

from riskft.data.labels import LabelMap
from riskft.data.readers.naming import class_name
from riskft.errors import InputError, refuse
from riskft.files import read_table


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
