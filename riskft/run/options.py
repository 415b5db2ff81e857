"""What the user says about a run: its place, its name, and how it is logged."""

from dataclasses import dataclass
from pathlib import Path


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
        overwrite: Let ``fit`` start again in a folder that holds a run. To resume the run, use ``--ckpt_path last``.
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
