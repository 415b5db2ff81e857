"""Checkpoints in several files, as Hugging Face's libraries write large ones: parts, and an index of them."""

from pathlib import Path

from riskft.errors import InputError
from riskft.files import read_json

INDEX = ".index.json"


def index_in(folder: Path) -> Path | None:
    """Returns the index of a checkpoint in parts that is the only one in the folder, or None."""
    found = sorted(folder.glob(f"*{INDEX}"))
    return found[0] if len(found) == 1 else None


def parts_of(index: Path) -> list[Path]:
    """Returns the files that an index names, in order.

    Raises:
        InputError: If it is no such index, or a file is missing.
    """
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        parts = [index.parent / name for name in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index}: is no index of a checkpoint in parts, expected JSON with a weight_map.") from error
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InputError(
            f"{index}: names {len(parts)} files, of which {len(missing)} are missing: {', '.join(missing[:4])}. Put "
            "them beside it."
        )
    return parts
