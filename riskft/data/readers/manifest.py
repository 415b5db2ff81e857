"""Cases from a table, for data without a known layout."""

from collections.abc import Sequence
from pathlib import Path

from riskft.data.readers.base import Reader
from riskft.data.readers.naming import People, listed_path, with_one_spelling
from riskft.data.records import SPLITS, Case
from riskft.errors import InputError, refuse
from riskft.files import read_table

_RESERVED = ("subject", "person", "split", "label")


class ManifestReader(Reader):
    """A CSV file with the header ``subject,split,<one column for each modality>,label``.

    ``split`` and ``label`` are optional. ``split`` is train, val, test or predict. The label may be empty in predict
    rows, and anywhere if there is no split column. Other columns are ignored. A data set with one modality may call
    the column and the modality ``image``.

    If a person has several scans, a column ``person`` names the person, and splits keep the scans together; leave the
    cell empty if the subject is the person. Without the column, subjects named as in BraTS (``BraTS-GLI-00005-100``)
    or BIDS (``sub-01_ses-2``) are grouped by their names.

    ::

        subject,split,t1,flair,label
        p01,train,p01/t1.nii.gz,p01/flair.nii.gz,p01/lesion.nii.gz

    Args:
        csv: The table: commas, UTF-8.
        root: Folder that relative paths in the table start from; by default the table's folder.
    """

    def __init__(self, csv: str | Path, root: str | Path | None = None) -> None:
        self.csv = Path(csv)
        self.root = self.csv.parent if root is None else Path(root)

    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject; see ``Reader.cases``.

        Raises:
            InputError: Also for all invalid lines, with the number and the problem of each.
        """
        header, lines = self._read()
        self._require_columns(header, modalities)
        problems: list[str] = []
        cases: dict[str, Case] = {}
        first: dict[str, int] = {}
        for number, cells in lines:
            row = dict(zip(header, cells, strict=False))
            subject = row.get("subject", "")
            found = _row_problems(row, len(cells) - len(header), modalities)
            if subject in first:
                found.append(f"subject '{subject}' is already in line {first[subject]}; expected one line per subject")
            problems += [f"line {number}: {problem}" for problem in found]
            first.setdefault(subject, number)
            if not found:
                images = {name: listed_path(self.root, row[name]) for name in modalities}
                label = listed_path(self.root, row["label"]) if row.get("label") else None
                cases[subject] = Case(subject, images, label, row.get("split"), person=row.get("person") or None)
        refuse(f"{self.csv} is not usable:", problems)
        if not cases:
            raise InputError(f"{self.csv} has a header and no line below it: add one line per subject.")
        found_people = with_one_spelling if "person" in header else People().find
        return sorted(found_people([*cases.values()]), key=lambda case: case.subject)

    def _read(self) -> tuple[list[str], list[tuple[int, list[str]]]]:
        if not self.csv.is_file():
            raise InputError(f"{self.csv} is not a file: set the reader's csv to the table of the cases.")
        lines = [(number, [cell.strip() for cell in cells]) for number, cells in read_table(self.csv)]
        if not lines:
            raise InputError(f"{self.csv} is empty: its first line must be subject,split,<modalities>,label.")
        return lines[0][1], lines[1:]

    def _require_columns(self, header: Sequence[str], modalities: Sequence[str]) -> None:
        available = [name for name in header if name and name not in _RESERVED]
        problems = [f"column '{name}' occurs twice" for name in sorted(set(header)) if header.count(name) > 1]
        if "subject" not in header:
            problems.append(f"there is no column 'subject' among {list(header)}; separate columns by commas")
        problems += [
            f"there is no column for the modality '{name}': available are {available}"
            for name in modalities
            if name not in available
        ]
        refuse(f"The header of {self.csv} is not usable:", problems)


def _row_problems(row: dict[str, str], surplus: int, modalities: Sequence[str]) -> list[str]:
    """Returns the problems of a single line."""
    if surplus:
        return [f"{abs(surplus)} cells too {'many' if surplus > 0 else 'few'}; a path with a comma needs quotes"]
    problems = [f"the cell of {name} holds a NUL byte: save the table as text" for name in row if "\0" in row[name]]
    wanted = ["subject", *modalities, *(["split"] if "split" in row else [])]
    if "label" in row and row.get("split", "predict") != "predict":
        wanted.append("label")
    if empty := [name for name in wanted if not row[name]]:
        problems.append(f"the cell of {', '.join(empty)} is empty")
    if row.get("split") and row["split"] not in SPLITS:
        problems.append(f"unknown split '{row['split']}': it must be one of {', '.join(SPLITS)}")
    if any(sign in row["subject"] for sign in "/\\") or row["subject"].startswith("."):
        problems.append(f"subject '{row['subject']}' cannot name files: leave out slashes and a leading dot")
    return problems
