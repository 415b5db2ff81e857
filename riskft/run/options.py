"""Options of a run: its folder, its name and its logging."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and what it is called; W&B gets the same names.

    The folder is ``<root>/<study>/<method>/seed=<n>`` and holds ``config.yaml``, ``checkpoints``, ``risk``,
    ``heatmaps``, ``cases.csv``, ``metrics.csv``, ``predictions`` and ``wandb``.

    Args:
        root: Folder of all runs.
        study: Name of the comparison; runs of a study share a W&B group.
        method: Name of the training method; the W&B job type.
        folder: The run's folder, instead of the one made of the options above.
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
        offline: Write to the run folder only; ``wandb sync FOLDER`` uploads the run later.
        project: W&B project.
        entity: W&B user or team.
        tags: Tags of the run.
        enabled: Whether there is a W&B run at all.
    """

    offline: bool = True
    project: str = "riskft"
    entity: str | None = None
    tags: list[str] | None = None
    enabled: bool = True
