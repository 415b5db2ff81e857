"""Checks that folders can be written to before any work is done."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riskft.errors import InputError, refuse
from riskft.run.folder import RunFolder
from riskft.run.risk import default_store

PROBE = bytes(4096)  #: One block on most file systems. An empty file can be created even when the quota is full.
MAPS = "RiskMapCallback"


def refuse_unwritable(places: Mapping[str, Path]) -> None:
    """Raises InputError, naming all by their options, if folders cannot be written to. Leaves nothing behind.

    They need not exist yet. The temporary folder is checked too, because W&B and the data loaders need it.
    """
    found = {option: (folder, why_not_writable(folder)) for option, folder in places.items()}
    problems = [
        f"{folder}: cannot be written: {reason}. Choose another folder ({option})."
        for option, (folder, reason) in found.items()
        if reason is not None
    ]
    problems += _temporary_folder_problems()
    if len(problems) == 1:
        raise InputError(problems[0])
    refuse("These folders cannot be written:", problems)


def why_not_writable(folder: Path) -> str | None:
    """Returns why a folder cannot be written to, or None if it can.

    It writes and removes a small file, because permissions do not tell: a file system can be read-only or full. If the
    folder does not exist yet, the nearest existing folder above it is tried.
    """
    try:
        place = _nearest(folder)
        if place.is_symlink() and not place.exists():
            return f"{_named(place, folder)} is a link to {os.readlink(place)}, which does not exist"
        if not place.is_dir():
            return f"{_named(place, folder)} is a file, expected a folder"
        with tempfile.NamedTemporaryFile(prefix=".tmp-", dir=place) as probe:
            probe.write(PROBE)
            probe.flush()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return getattr(error, "strerror", None) or str(error)
    return None


def _temporary_folder_problems() -> list[str]:
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return [f"{error.strerror}. Set TMPDIR to a folder that can be written."]
    return []


def _nearest(folder: Path) -> Path:
    """Returns the folder, or the nearest existing one above it. A broken link counts as existing."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))


def _named(place: Path, folder: Path) -> str:
    return "it" if place == folder else str(place)


def places_of(command: str, config: Any, folder: Path) -> dict[str, Path]:
    """Returns the folders that a Lightning command with this config and run folder will write to, by option."""
    places: dict[str, Path] = {}
    if command == "riskmap":
        places["--out"] = folder
    elif command in ("fit", "test"):  # the others only log there, which is optional
        places["--run.root, --run.study or --run.folder"] = folder
    elif command == "predict":
        places["--out"] = Path(config.out) if config.out else RunFolder(folder).predictions
    cache = Path(config.data.cache_dir)
    # a complete cache may be read-only; whether it is complete is known only after the scans are read
    if not _holds(cache, "cases/*"):
        places["--data.cache_dir"] = cache
    mapping = [one.init_args for one in listed(config.trainer.callbacks) if str(one.class_path).endswith(MAPS)]
    if command in ("fit", "riskmap"):
        given = [options.store for options in mapping if options.get("store")]
        if given and not _holds(Path(given[0]), "*/*/summary.json"):
            places["store of riskft.RiskMapCallback"] = Path(given[0])
        elif (mapping or command == "riskmap") and not given and not _holds(default_store(cache), "*/*/summary.json"):
            places.setdefault("--data.cache_dir", default_store(cache))
    return places


def _holds(folder: Path, pattern: str) -> bool:
    try:
        return next(folder.glob(pattern), None) is not None
    except OSError:
        return False


def listed(callbacks: Any) -> list[Any]:
    """Returns the callbacks of a config, which may be one, several or none."""
    return list(callbacks) if isinstance(callbacks, list) else [callbacks] if callbacks else []
