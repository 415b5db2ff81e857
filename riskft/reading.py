"""Reading small text files that users, other programs and earlier runs have written."""

import csv
import json
from pathlib import Path
from typing import Any

from riskft.errors import InputError


def read_text(path: Path) -> str:
    """Returns what a text file holds, without the byte order mark that some editors write.

    Raises:
        InputError: If it cannot be read, or is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): correct the path or its permissions.") from error
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise InputError(f"{path} is not text in UTF-8 ({where}): save it as such, or give another file.") from error


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        InputError: If it is not there or no JSON in UTF-8.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON in UTF-8 ({error}): correct it.") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the mapping that a JSON file holds.

    Raises:
        InputError: If it holds something else, or cannot be read.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {content!r:.60}, expected a mapping, as riskft writes it.")
    return content


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file by column; what a row lacks is empty, what it has too much is left out.

    Raises:
        InputError: If it is not there or no CSV file in UTF-8.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines(), restval=""))
    except csv.Error as error:
        raise InputError(f"{path} is no CSV file ({error}): correct it.") from error
    return [{name: value for name, value in row.items() if isinstance(name, str)} for row in rows]
