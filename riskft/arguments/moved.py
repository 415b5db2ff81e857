"""Runs that were moved, copied or renamed: their config says where they were, not where they are."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from riskft.arguments.given import Option
from riskft.errors import InputError
from riskft.run.folder import RunFolder, recorded_folder

#: Options that say where a run goes; one of them on the command line is meant as it is.
OWN_PLACE = ("run", "run.root", "run.study", "run.method", "run.folder", "seed_everything", "trainer.default_root_dir")


@dataclass(frozen=True)
class Moved:
    """A run whose config is given, and that is not where the config says.

    Attributes:
        before: Where the config says that it is, absolute.
        now: Where the config lies, absolute.
    """

    before: Path
    now: Path

    def here(self, path: str) -> str:
        """Returns where a file or folder is that was moved along with the run; other text as it is.

        What is common to the ends of both places was moved as a whole: of ``/a/runs/study/method/seed=0`` and
        ``/b/study/method/seed=0`` that is ``/a/runs``, which has become ``/b``. Something else that is gone may be
        where it was as seen from the run.

        Args:
            path: Any text of the config.
        """
        before, now = self.before, self.now
        while before.name and before.name == now.name:
            before, now = before.parent, now.parent
        absolute = os.path.abspath(path)
        if path and Path(absolute).is_relative_to(before):
            moved = os.path.join(now, os.path.relpath(absolute, before))
        elif os.path.isabs(path) and not os.path.exists(path):
            moved = os.path.normpath(os.path.join(self.now, os.path.relpath(path, self.before)))
        else:
            return path
        return moved if os.path.exists(moved) else path


def moved_run(options: Sequence[Option]) -> Moved | None:
    """Returns the run whose ``config.yaml`` a command is given, if it is not where that says.

    Args:
        options: All of the command.
    """
    for option in reversed(options):
        path = Path(option.text)
        run = RunFolder(path.parent)
        if option.name != "config" or path.name != run.config.name or not _is_trained(run):
            continue
        try:
            before = recorded_folder(run.read_config())
        except (InputError, TypeError):
            return None  # the parser of the command has a better message
        if before is None or (before.is_dir() and before.samefile(path.parent)):
            return None
        return Moved(Path(os.path.abspath(before)), path.parent.absolute())
    return None


def place_is_given(options: Sequence[Option]) -> bool:
    """Whether a command's own options say where the run is."""
    return any(option.name in OWN_PLACE for option in options)


def bring_along(config: Any, moved: Moved) -> None:
    """Lets a command's options point to what was moved along with a run: its source network, cache and maps.

    The data stay what they are.

    Args:
        config: The parsed options of a command; changed.
        moved: The run.
    """
    config.data.cache_dir = moved.here(config.data.cache_dir)
    for part in ("model", "trainer"):
        config[part] = _each_text(config[part], moved.here)


def settle(options: Any, moved: Moved, seed: int) -> None:
    """Lets the options that say where a run goes say where it is now, for its next record.

    Args:
        options: ``run``; changed.
        moved: The run.
        seed: ``seed_everything``.
    """
    tail = Path(options.study) / options.method / f"seed={seed}"
    root = moved.now.parents[len(tail.parts) - 1] if len(moved.now.parents) >= len(tail.parts) else moved.now
    if options.folder is None and root / tail == moved.now:
        options.root = str(root)
    else:
        options.folder = str(moved.now)


def _is_trained(run: RunFolder) -> bool:
    """Whether a folder holds a config and something else that a training leaves."""
    return run.config.is_file() and any(
        path.exists() for path in (run.checkpoints, run.metrics, run.wandb_id, run.lock)
    )


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Namespace):
        for name, part in vars(value).items():
            setattr(value, name, _each_text(part, change))
        return value
    if isinstance(value, dict):
        return {name: _each_text(part, change) for name, part in value.items()}
    return [_each_text(part, change) for part in value] if isinstance(value, list) else value
