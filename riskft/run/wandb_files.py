"""Where W&B stages its files, and the W&B id of a run, which stays the same when the run is resumed."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riskft.files import read_text, write_text
from riskft.run.folder import RunFolder, recorded_folder

#: Where W&B stages data and caches. The default is the home folder, which containers may lack.
STAGING = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache", "WANDB_CONFIG_DIR": "config"}


def stage_in(folder: Path, offline: bool) -> None:
    """Makes W&B write into the run folder, so that an offline run needs nothing outside it.

    An online run takes its login and any paths from the user's environment.
    """
    for name, place in STAGING.items():
        if offline or (name not in os.environ and name != "WANDB_CONFIG_DIR"):
            os.environ[name] = str(RunFolder(folder.absolute()).wandb / place)


@contextmanager
def staging_undone() -> Iterator[None]:
    """Undoes ``stage_in`` on exit, so that the next command in this process does not use this run's folder."""
    before = {name: os.environ.get(name) for name in STAGING}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def run_id(run: RunFolder, renew: bool) -> str:
    """Returns the W&B id kept in the run folder, or one for a new run (``renew``).

    A moved folder keeps its id. A copy gets a new one, so that it does not write into the original's W&B run. With
    ``renew`` the old one stays in the folder until ``keep_run_id``, because the command may still be refused.
    """
    if renew and run.wandb_id.is_file():
        return _new_id(run)
    if not run.wandb_id.is_file() or _is_copy(run):
        write_text(run.wandb_id, _new_id(run))
    return read_text(run.wandb_id).strip()


def keep_run_id(run: RunFolder, name: str) -> None:
    """Writes the W&B id of a new run into its folder, replacing that of the previous run."""
    if not run.wandb_id.is_file() or run_id(run, renew=False) != name:
        write_text(run.wandb_id, name)


def _new_id(run: RunFolder) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(run.path.parts[-3:]))[-40:].strip("-")
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _is_copy(run: RunFolder) -> bool:
    """Whether the run that the folder's config was written for still exists elsewhere with the same W&B id."""
    recorded = recorded_folder(run.read_config())
    if recorded is None:
        return False
    original = RunFolder(recorded)
    if not original.wandb_id.is_file() or original.path.samefile(run.path):
        return False
    return original.wandb_id.read_bytes() == run.wandb_id.read_bytes()
