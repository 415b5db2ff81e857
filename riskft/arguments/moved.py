"""Runs that were moved, copied or renamed since their config was written."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from riskft.arguments.given import Option
from riskft.errors import InputError
from riskft.run.folder import RunFolder, recorded_folder

#: Options that say where a run goes. If the command line gives one, it is taken literally.
OWN_PLACE = ("run", "run.root", "run.study", "run.method", "run.folder", "seed_everything", "trainer.default_root_dir")


@dataclass(frozen=True)
class Moved:
    """A run that is not in the folder that its config names (``before``), but in another (``now``); both absolute."""

    before: Path
    now: Path

    def here(self, path: str) -> str:
        """Returns the new path of a file or folder that moved with the run; any other text of the config unchanged.

        The common end of both places stayed the same, so the rest was moved as a whole: from
        ``/a/runs/study/method/seed=0`` to ``/b/study/method/seed=0``, ``/a/runs`` became ``/b``. Any other missing path
        is looked up at its old position relative to the run.
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
    """Returns the run whose ``config.yaml`` is among a command's options, if it is not where the config says."""
    for option in reversed(options):
        path = Path(option.text)
        run = RunFolder(path.parent)
        if option.name != "config" or path.name != run.config.name or not _is_trained(run):
            continue
        try:
            before = recorded_folder(run.read_config())
        except (InputError, TypeError):
            return None  # the parser reports it better
        if before is None or (before.is_dir() and before.samefile(path.parent)):
            return None
        return Moved(Path(os.path.abspath(before)), path.parent.absolute())
    return None


def place_is_given(options: Sequence[Option]) -> bool:
    """Whether the command line says where the run is."""
    return any(option.name in OWN_PLACE for option in options)


def bring_along(config: Any, moved: Moved) -> None:
    """Points a command's options to the source network, cache and maps (not the data) that moved along with a run."""
    config.data.cache_dir = moved.here(config.data.cache_dir)
    for part in ("model", "trainer"):
        config[part] = _each_text(config[part], moved.here)


def settle(options: Any, moved: Moved, seed: int) -> None:
    """Points the options ``run``, in place, to where a run is now, for its next record."""
    tail = Path(options.study) / options.method / f"seed={seed}"
    root = moved.now.parents[len(tail.parts) - 1] if len(moved.now.parents) >= len(tail.parts) else moved.now
    if options.folder is None and root / tail == moved.now:
        options.root = str(root)
    else:
        options.folder = str(moved.now)


def _is_trained(run: RunFolder) -> bool:
    """Whether a folder holds a config and something else that training writes."""
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
