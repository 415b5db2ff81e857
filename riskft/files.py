"""Small files, read with errors that a user understands and written whole or not at all; and fingerprints."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from riskft.errors import InputError, NoSpaceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path in the target's folder, made if needed, and renames it to ``target`` on success.

    A reader never sees a half-written file, whatever kills the writer. On an error, the temporary file is removed. The
    temporary name keeps only the target's endings, by which many writers choose the format: Lightning takes any file
    with ``last`` in its name for a checkpoint. Raises NoSpaceError if the file system is full or the file is larger
    than allowed, and InputError if the system gives another reason why the file cannot be written.
    """
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex[:8]}{''.join(target.suffixes)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except NoSpaceError:
        raise
    except (OSError, RuntimeError) as error:
        if is_full(error, target):
            raise NoSpaceError(no_space_message(target)) from error
        if isinstance(error, OSError) and _concerns(error, temporary, target):
            raise InputError(f"{target}: cannot be written ({error.strerror or error}).") from error
        raise
    finally:
        with suppress(OSError):  # raised on a read-only file system even if the file does not exist
            temporary.unlink()


def _concerns(error: OSError, temporary: Path, target: Path) -> bool:
    """Whether an error concerns the file that is written or its folder, not a file that is read meanwhile."""
    return error.filename is not None and Path(error.filename) in (temporary, target, target.parent, *target.parents)


def is_full(error: BaseException, target: Path) -> bool:
    """Whether a writer failed because there was no space; errors of NumPy and torch lack the system's number."""
    number = getattr(error, "errno", None)
    return number in FULL if number is not None else _free(target) < 1 << 16


def no_space_message(target: Path) -> str:
    """Says which file could not be written, and how much space there is."""
    return (
        f"{target}: cannot be written because there is no space ({_free(target) / 1e6:.1f} MB free on its file system; "
        "a quota or a limit on file sizes counts too). No half-written file remains. Free some space, or choose "
        "another run.root or data.cache_dir, and start again (fit: with --ckpt_path last; predict writes only what is "
        "missing)."
    )


def _free(target: Path) -> int:
    """Returns the bytes that are free where a file is or will be."""
    existing = next(folder for folder in [target, *target.absolute().parents] if folder.exists())
    return shutil.disk_usage(existing).free


def write_text(target: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys atomically."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True) + "\n")


def keep_old(target: Path, unless: str | None = None) -> None:
    """Moves a file aside, ``name.csv`` to ``name.1.csv`` or the next number, unless it holds the text ``unless``."""
    if not target.is_file() or (unless is not None and target.read_bytes() == unless.encode()):
        return
    number = max(_numbered(target), default=0) + 1
    target.rename(target.with_name(f"{target.stem}.{number}{target.suffix}"))


def earlier(target: Path) -> list[Path]:
    """Returns the files that ``keep_old`` moved aside, oldest first."""
    return [path for _, path in sorted(_numbered(target).items())]


def _numbered(target: Path) -> dict[int, Path]:
    pattern = re.compile(rf"{re.escape(target.stem)}\.(\d+){re.escape(target.suffix)}")
    return {int(found[1]): path for path in target.parent.glob("*") if (found := pattern.fullmatch(path.name))}


def safe_name(subject: str) -> str:
    """Returns a subject as a file name."""
    name = quote(subject, safe=" ()+,=@")
    return name.replace(".", "%2E") if set(name) == {"."} else name


def file_digest(path: Path) -> str:
    """Returns the BLAKE2b digest (32 hex digits) of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def without_addresses(text: str) -> str:
    """Returns a representation without memory addresses, which differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Returns 16 hex digits that change whenever any JSON-serialisable part changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_text(path: Path) -> str:
    """Returns a text without a byte order mark; raises InputError if it cannot be read, or is not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Correct the path or its permissions.") from error
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise InputError(f"{path} is not text in UTF-8 ({where}). Save it as UTF-8, or give another file.") from error


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds; raises InputError if it cannot be read, or is not JSON in UTF-8."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON in UTF-8 ({error}). Correct it.") from error


def json_or_none(path: Path) -> Any:
    """Returns what a JSON file holds; None if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the mapping that a JSON file holds; raises InputError if it holds something else, or cannot be read."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {content!r:.60}, expected a mapping as riskft writes it.")
    return content


def read_rows(path: Path) -> list[dict[str, str]]:
    """Returns a CSV file's rows by column, without surplus cells and with "" for missing ones; see ``read_table``."""
    lines = [cells for _, cells in read_table(path)]
    return [dict(zip(lines[0], [*cells, *[""] * len(lines[0])], strict=False)) for cells in lines[1:]]


def read_table(path: Path, delimiter: str = ",") -> list[tuple[int, list[str]]]:
    """Returns (line number, cells) of a table's lines that are not empty, header included.

    Raises InputError if it cannot be read, or is not a table in UTF-8.
    """
    table = csv.reader(io.StringIO(read_text(path)), delimiter=delimiter)
    try:
        lines = [(table.line_num, cells) for cells in table]
    except csv.Error as error:
        raise InputError(
            f"{path} is not a table with {delimiter!r} between the columns ({error}). Correct it."
        ) from error
    return [(number, cells) for number, cells in lines if any(cell.strip() for cell in cells)]


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
