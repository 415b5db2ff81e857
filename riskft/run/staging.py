"""Where W&B stages its files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riskft.run.folder import RunFolder

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
