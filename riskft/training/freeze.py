"""Freezing the backbone during the first epochs."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import Optimizer

from riskft.compat import finds_unused_parameters
from riskft.distributed import is_first_rank
from riskft.errors import InputError
from riskft.losses.length import check_length, counted, is_part
from riskft.training.length import run_length
from riskft.training.module import RiskModule

log = logging.getLogger(__name__)


class BackboneFreeze(BaseFinetuning):
    """Trains only the head up to a given epoch, then the whole network.

    The optimizer holds the backbone from the start, in its own group; while frozen, it gets no gradients. It is frozen
    after DDP wraps the module, because DDP never averages the gradients of parameters that are frozen at that point.
    For the same reason DDP must look for unused parameters.

    Args:
        unfreeze_at_epoch: First epoch (from 0) in which the backbone is trained, or a fraction of the run's epochs: 0.1
            freezes it for the first tenth, but for at least one epoch.
    """

    def __init__(self, unfreeze_at_epoch: int | float = 0.1) -> None:
        super().__init__()
        check_length("unfreeze_at_epoch", unfreeze_at_epoch, least=1)
        self.unfreeze_at_epoch = unfreeze_at_epoch
        self.epoch: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the strategy; overrides Lightning's, which would freeze the backbone here."""
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and not finds_unused_parameters(strategy):
            raise InputError(
                "BackboneFreeze on several devices needs trainer.strategy: ddp_find_unused_parameters_true"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes the backbone, unless a resumed run is past that; warns if it is never trained."""
        epochs = run_length(trainer).epochs
        if self.epoch is None:  # else it comes from the checkpoint
            self.epoch = counted(self.unfreeze_at_epoch, epochs, least=1)
        if is_first_rank() and self.epoch >= epochs:
            log.warning(
                "riskft.BackboneFreeze never trains the backbone: the run has %d epochs, and it is frozen until "
                "epoch %d (unfreeze_at_epoch: %s). %s.",
                *(epochs, self.epoch, self.unfreeze_at_epoch),
                "Train for more epochs (trainer.max_epochs)"
                if is_part(self.unfreeze_at_epoch)
                else "Give a fraction of the run, for example 0.1, or more epochs",
            )
        if trainer.current_epoch < self.epoch:
            if is_first_rank():
                log.info("The head alone is trained until epoch %d, then all of the network.", self.epoch)
            self.freeze_before_training(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Returns Lightning's state and the epoch of unfreezing."""
        return {**super().state_dict(), "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the epoch of unfreezing, even if the run's length has changed."""
        super().load_state_dict(state_dict)
        self.epoch = state_dict["epoch"]

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes everything except the head."""
        if not isinstance(pl_module, RiskModule):
            raise InputError("BackboneFreeze needs a riskft.RiskModule.")
        self.freeze(pl_module.network, train_bn=False)
        self.make_trainable([pl_module.network.get_submodule(name) for name in pl_module.head])

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Unfreezes the backbone at its epoch."""
        if epoch == self.epoch:
            self.make_trainable(pl_module)
