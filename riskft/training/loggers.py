"""The loggers of a run: W&B and ``metrics.csv``."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from riskft.distributed import is_first_rank
from riskft.files import keep_old
from riskft.run.folder import RunFolder, WandbOptions
from riskft.run.wandb_files import run_id, stage_in


def run_loggers(folder: Path, command: str, config: Any, starts_over: bool) -> list[Logger]:
    """Returns the loggers of a command: W&B, unless it is off, and ``metrics.csv``.

    All commands but ``fit`` write ``metrics.csv`` into a subfolder of their name. ``starts_over`` says that the command
    trains without resuming, which starts a new W&B run.
    """
    options: WandbOptions = config.wandb
    loggers: list[Logger] = []
    if logs_to_wandb(config):
        folder.mkdir(parents=True, exist_ok=True)
        stage_in(folder, options.offline)
        loggers.append(
            WandbLogger(
                save_dir=str(folder),
                offline=options.offline,
                project=options.project,
                entity=options.entity,
                tags=options.tags,
                group=config.run.study,
                job_type=config.run.method,
                name=f"{config.run.method} seed={config.seed_everything} {command}",
                id=_wandb_id(folder, command, starts_over),
                settings={"console": "off", "silent": options.offline},
            )
        )
    fits = command == "fit"
    return [*loggers, RunCSVLogger(folder if fits else folder / command, keep=fits)]


class RunCSVLogger(CSVLogger):
    """Writes ``metrics.csv``, and can keep an existing one by moving it aside; Lightning's logger deletes it."""

    def __init__(self, folder: Path, keep: bool) -> None:
        super().__init__(str(folder), name="", version="")
        self._keep = keep

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Returns the writer of the file."""
        if self._experiment is None:
            self._experiment = _LateWriter(self.log_dir, self._keep)
        return cast(ExperimentWriter, self._experiment)


class _LateWriter(ExperimentWriter):
    """Leaves an existing file alone until the first save, because the command may still fail on its options."""

    def __init__(self, folder: str, keep: bool) -> None:
        super().__init__(folder)
        self._earlier: Callable[[Path], None] | None = keep_old if keep else partial(Path.unlink, missing_ok=True)

    def _check_log_dir_exists(self) -> None:
        """Does nothing; Lightning's own method deletes the existing file."""

    def save(self) -> None:
        """Writes the logged metrics."""
        if self.metrics and self._earlier is not None:
            self._earlier(Path(self.metrics_file_path))
            self._earlier = None
        super().save()


def logs_to_wandb(config: Any) -> bool:
    """Returns whether a command logs to W&B; ``WANDB_MODE=disabled`` in the environment turns it off."""
    wanted = config.wandb.enabled and os.environ.get("WANDB_MODE") != "disabled"
    return bool(wanted and not config.trainer.fast_dev_run and config.trainer.logger is None)


def _wandb_id(folder: Path, command: str, starts_over: bool) -> str | None:
    if not is_first_rank():
        return None  # other ranks log nothing
    return run_id(RunFolder(folder), starts_over) + ("" if command == "fit" else f"-{command}")


def wandb_run(trainer: Trainer) -> Any | None:
    """Returns the ``wandb`` run of the first W&B logger; None without one, and on all ranks but 0."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
