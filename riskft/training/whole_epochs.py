"""Resumed runs go on with the epoch that an undisturbed run would have."""

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.compat import start_next_epoch


class WholeEpochs(Callback):
    """Starts the next epoch when a run resumes from the end of one, also if ``trainer.max_steps`` ends it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Corrects Lightning's loops, before callbacks that ask for the epoch."""
        start_next_epoch(trainer)
