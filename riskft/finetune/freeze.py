"""Freezing the backbone for the first epochs."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.strategies import DDPStrategy
from torch.optim import Optimizer

from riskft.errors import InputError
from riskft.finetune.module import RiskModule


class BackboneFreeze(BaseFinetuning):
    """Trains the head alone until an epoch, then everything.

    The backbone is in the optimizer from the start, in its own group, and gets no gradients while it is frozen. It is
    frozen after DDP has wrapped the module, because DDP would never again average what needs no gradient then; for
    the same reason DDP must look for unused parameters.

    Args:
        unfreeze_at_epoch: First epoch in which the backbone is trained.
    """

    def __init__(self, unfreeze_at_epoch: int = 10) -> None:
        super().__init__()
        if unfreeze_at_epoch < 1:
            raise InputError(f"BackboneFreeze: unfreeze_at_epoch is {unfreeze_at_epoch}, expected 1 or more.")
        self.unfreeze_at_epoch = unfreeze_at_epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the strategy; nothing is frozen yet."""
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters", False):
            raise InputError(
                "BackboneFreeze on several devices needs trainer.strategy: ddp_find_unused_parameters_true"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes, unless a resumed run is past that."""
        if trainer.current_epoch < self.unfreeze_at_epoch:
            self.freeze_before_training(pl_module)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freezes all but the head."""
        if not isinstance(pl_module, RiskModule):
            raise InputError("BackboneFreeze needs a riskft.RiskModule.")
        self.freeze(pl_module.network, train_bn=False)
        self.make_trainable([pl_module.network.get_submodule(name) for name in pl_module.head])

    def finetune_function(self, pl_module: LightningModule, epoch: int, optimizer: Optimizer) -> None:
        """Frees the backbone when its epoch has come."""
        if epoch == self.unfreeze_at_epoch:
            self.make_trainable(pl_module)
