"""The length of a run."""

import math
from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer

from riskft.errors import InputError


@dataclass(frozen=True)
class RunLength:
    """The total length of a run, including what a checkpoint has already done.

    Epochs, steps and batches are infinite if only a time limit or a callback ends the run.
    """

    epochs: float  #: Epochs, including a last one that ``trainer.max_steps`` cuts short.
    steps: float  #: Optimizer steps.
    batches: float  #: Training batches per process; more than steps with ``trainer.accumulate_grad_batches``.
    epoch_batches: float  #: Batches of a complete epoch.
    whole_epochs: float  #: Complete epochs.


def run_length(trainer: Trainer) -> RunLength:
    """Returns the length of a run; creates the training loader if there is none yet.

    Raises InputError if ``trainer.val_check_interval`` is longer than an epoch.
    """
    if trainer.train_dataloader is None:
        try:
            trainer.fit_loop.setup_data()
        except ValueError as error:
            if "val_check_interval" not in str(error):
                raise
            raise InputError(" ".join(str(error).split())) from error
    per_epoch = float(trainer.num_training_batches)
    epochs = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)
    most = math.inf if trainer.max_steps == -1 else float(trainer.max_steps)
    if not per_epoch or not epochs or not most:
        return RunLength(0, 0, 0, per_epoch, 0)
    if not math.isfinite(per_epoch) or not (math.isfinite(epochs) or math.isfinite(most)):
        return RunLength(epochs, most, most * trainer.accumulate_grad_batches, per_epoch, epochs)
    schedule = next((one for one in trainer.callbacks if isinstance(one, GradientAccumulationScheduler)), None)  # type: ignore[attr-defined]
    epoch, steps, batches = 0, 0.0, 0.0
    while epoch < epochs and steps < most:
        together = trainer.accumulate_grad_batches if schedule is None else schedule.get_accumulate_grad_batches(epoch)
        whole = math.ceil(per_epoch / together)
        if steps + whole > most:
            return RunLength(epoch + 1, most, batches + min(per_epoch, (most - steps) * together), per_epoch, epoch)
        epoch, steps, batches = epoch + 1, steps + whole, batches + per_epoch
    return RunLength(epoch, steps, batches, per_epoch, epoch)


def is_endless(trainer: Trainer) -> bool:
    """Returns whether a run has no limit of epochs or steps; call it before the run starts."""
    timed = any(isinstance(one, Timer) for one in trainer.callbacks)  # type: ignore[attr-defined]
    return trainer.max_steps == -1 and (trainer.max_epochs == -1 or (trainer.max_epochs is None and timed))
