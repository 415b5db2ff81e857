"""Finding the W&B run among a trainer's loggers."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger


def wandb_run(trainer: Trainer) -> Any | None:
    """Returns the ``wandb`` run of the first W&B logger on global rank 0, else None."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            return logger.experiment
    return None
