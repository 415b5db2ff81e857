"""Notes which cases of an interrupted prediction are finished, so that the next one skips them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.files import write_json


class Unfinished:
    """Keeps one note per finished case beside the files, until all cases are finished.

    A file counts only if it was made with the same weights and options from the same scan, and has not changed since.
    """

    def __init__(self, folder: Path, made_with: str) -> None:
        self.folder = folder
        self.made_with = made_with
        self.notes = folder / ".unfinished"  #: The folder of the notes.

    def has(self, name: str, key: str | None = None) -> bool:
        """Whether a case is finished; ``key`` is the fingerprint of scan and preprocessing, None if not known."""
        try:
            note = json.loads(self._note(name).read_text(encoding="utf-8"))
            made_with, of, files = note["made_with"], note["of"], note["files"]
            same = made_with == self.made_with and key in (None, of)
            return same and all(_state(self.folder / file) == state for file, state in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def add(self, name: str, key: str, files: Sequence[Path], estimate: Mapping[str, Any] | None = None) -> None:
        """Notes that a case is finished, the state of its files, and what a table needs that is written at the end."""
        states = {file.name: _state(file) for file in files}
        write_json(self._note(name), {"made_with": self.made_with, "of": key, "files": states, "estimate": estimate})

    def estimate(self, name: str) -> dict[str, Any]:
        """Returns what was noted for the table of a finished case."""
        found: dict[str, Any] = json.loads(self._note(name).read_text(encoding="utf-8"))["estimate"]
        return found

    def end(self) -> None:
        """Removes the notes, because all cases are finished."""
        shutil.rmtree(self.notes, ignore_errors=True)

    def _note(self, name: str) -> Path:
        return self.notes / f"{name}.json"


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
