"""One folder a run, with a fixed place for everything."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from riskft.errors import InputError


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and what it is called; W&B gets the same names.

    The folder is ``<root>/<study>/<method>/seed=<n>`` and holds ``config.yaml``, ``checkpoints``, ``risk``,
    ``heatmaps``, ``cases.csv``, ``metrics.csv``, ``predictions`` and ``wandb``.

    Args:
        root: Folder of all runs.
        study: What is compared; runs of a study share a W&B group.
        method: How it was trained; the W&B job type.
        folder: Another folder than the one made of the above.
        overwrite: Let ``fit`` start anew in a folder that holds a run. To go on with it, use ``--ckpt_path last``.
    """

    root: str = "runs"
    study: str = "default"
    method: str = "riskft"
    folder: str | None = None
    overwrite: bool = False

    def path(self, seed: int) -> Path:
        """Returns the run's folder."""
        if self.folder is not None:
            return Path(self.folder)
        return Path(self.root) / self.study / self.method / f"seed={seed}"


@dataclass(frozen=True)
class WandbOptions:
    """How the run is logged to Weights & Biases.

    Args:
        offline: Write the run into the run folder only; ``wandb sync FOLDER`` uploads it later.
        project: W&B project.
        entity: W&B user or team.
        tags: Tags of the run.
        enabled: With false there is no W&B run at all.
    """

    offline: bool = True
    project: str = "riskft"
    entity: str | None = None
    tags: list[str] | None = None
    enabled: bool = True


def refuse_finished(folder: Path, overwrite: bool, resuming: bool) -> None:
    """Raises InputError if ``fit`` would start anew in a folder that already holds a run."""
    if (folder / "config.yaml").exists() and not overwrite and not resuming:
        raise InputError(
            f"{folder} already holds a run. Resume it with --ckpt_path last, start anew with --run.overwrite true, or "
            "choose another run.study, run.method or seed_everything."
        )


def run_id(folder: Path) -> str:
    """Returns a W&B id that a resumed run shares with the run that it goes on with: made of the folder's path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(folder.resolve().parts[-3:]))[-64:]


def git_commit(folder: Path | None = None) -> str:
    """Returns the commit of the checkout that the code runs from (``-dirty`` if changed), or ``unknown``."""
    command = ["git", "-C", str(folder or Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
