"""Pauses a run on the way, and keeps each validation case's scores at that point."""

import logging
import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.files import csv_text, read_rows, write_text
from riskft.losses.length import check_length, counted
from riskft.training.length import run_length
from riskft.training.of_trainer import run_folder
from riskft.training.segmentation import SegmentationModule

log = logging.getLogger(__name__)
COLUMNS = ("at", "step", "steps", "seconds", "subject", "class_name", "dice")


class PauseAt(Callback):
    """Stops a run at a step as if it had been interrupted there; schedules are those of the whole run.

    The run pauses at the end of the epoch that reaches the step, after a validation, and exits with status 0.
    ``--ckpt_path last`` goes on to a later pause or, without this callback, to the end, and gives the weights of an
    undisturbed run. A run that is already past the step makes no further steps. The validation cases' Dice at each
    pause and at the end, also where something else stops the run early, is in ``validation.csv`` in the run folder.

    Args:
        at: Steps, or a fraction of the run's steps: 0.25 pauses after the first quarter. null: does not pause.
    """

    def __init__(self, at: int | float | None = None) -> None:
        super().__init__()
        if at is not None:
            check_length("at", at, least=1)
        self.at = at
        self._step = self._steps = math.inf
        self._due = False
        self._validated: int | None = None  # the step of the last validation
        self._every: int | None = None
        self._started = time.monotonic()
        self._before = 0.0  # seconds of the starts that this one resumes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Converts ``at`` to steps, and ends at once if the run has made them already."""
        self._steps = run_length(trainer).steps
        self._step = self._steps if self.at is None else counted(self.at, self._steps, least=1)
        self._due = False
        if trainer.global_step >= self._step and self.at is not None:
            _stop(trainer)
            self._say(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks for a validation and the end after the epoch's last batch, or the run's."""
        step = trainer.global_step
        if step >= self._step and (trainer.is_last_batch or step >= self._steps):
            self._due = True
            self._every = trainer.check_val_every_n_epoch
            if self._every is not None:  # else validations go by steps, and a run that stops is always validated
                trainer.check_val_every_n_epoch = 1
            _stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the cases' scores; ``last.ckpt`` follows at the end of the epoch."""
        if not trainer.sanity_checking:
            self._validated = trainer.global_step
        if self._due:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the trainer, and logs that the run has not ended."""
        if not self._due and trainer.should_stop and trainer.global_step < self._step:  # early stopping, or max_time
            self._write(trainer, pl_module)
        if self._due:
            trainer.check_val_every_n_epoch = self._every
            if trainer.global_step < self._steps:
                self._say(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the seconds that the run has taken so far."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Adds the seconds of the starts before this one."""
        self._before = float(state_dict["seconds"])

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        """Adds the last validation's scores to the table, without those of later steps, which the run now repeats."""
        step = self._validated
        if step is None or not trainer.is_global_zero or not isinstance(module, SegmentationModule):
            return
        folder = run_folder(trainer)
        rows = read_rows(folder.validation) if folder.validation.is_file() else []
        kept = [[row[name] for name in COLUMNS] for row in rows if int(row["step"]) < step]
        steps = int(self._steps) if math.isfinite(self._steps) else ""
        head = [1.0 if self.at is None else self.at, step, steps, round(self._seconds(), 1)]
        new = [[*head, score.subject, score.class_name, score.dice] for score in module.validated]
        write_text(folder.validation, csv_text(COLUMNS, [*kept, *new]))

    def _say(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            log.info(
                "The run is paused at step %d of %.0f. To go on, add --ckpt_path last, and a later riskft.PauseAt or "
                "--trainer.drop_callbacks [riskft.PauseAt].",
                *(trainer.global_step, self._steps),
            )


def _stop(trainer: Trainer) -> None:
    trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None
    trainer.should_stop = True
