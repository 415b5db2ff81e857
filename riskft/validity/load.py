"""Loads a run from its folder as it was trained: network, data, and how it segments whole volumes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor

from riskft.build import Command
from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError, UsageError
from riskft.run.folder import RunFolder
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.checkpoints import find_checkpoint
from riskft.training.module import RiskModule
from riskft.training.segmentation import tested_logits


@dataclass(frozen=True)
class LoadedRun:
    """A run built from its config, at first without its weights."""

    folder: RunFolder  #: The run's folder.
    module: RiskModule
    data: RiskDataModule  #: The data, all splits prepared.
    trainer: Trainer  #: Device and precision of its test.

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.trainer.strategy.root_device

    def load_weights(self) -> None:
        """Loads the best checkpoint and moves the module to its device, as ``riskft test`` does."""
        checkpoint = WholeCheckpointIO().load_checkpoint(
            find_checkpoint(self.folder), map_location="cpu", weights_only=True
        )
        self.module.load_state_dict(checkpoint["state_dict"], strict=self.module.strict_loading)
        self.module.setup("test")
        self.trainer.precision_plugin.convert_module(self.module.eval()).to(self.device)

    def probabilities(self, image: Tensor) -> Tensor:
        """Returns an image's class probabilities, (Y, X, Y, Z) float32 on the CPU, from (1, C, X, Y, Z)."""
        return tested_logits(self.trainer, self.module, image).float().softmax(1)[0].cpu()


def load_run(folder: Path, accelerator: str | None = None) -> LoadedRun:
    """Builds a run from its config and prepares its data; raises InputError if they can no longer be used."""
    run = RunFolder(folder)
    arguments = ["test", "--config", str(run.config), "--trainer.strategy", "auto"]
    arguments += ["--trainer.devices", "1", "--trainer.num_nodes", "1"]
    arguments += ["--trainer.accelerator", accelerator] if accelerator else []
    try:
        built = Command(arguments)
        built.build_apart()
    except UsageError as error:
        raise InputError(f"{run.config}: {error.args[0]}") from None
    except InputError as error:
        # Lightning raises this for the trainer's options
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        raise InputError(f"{run.config}: {error.__cause__} Choose another device with --accelerator.") from error
    data: RiskDataModule = built.datamodule
    data.prepare_data()
    data.setup("test")
    return LoadedRun(run, built.model, data, built.trainer)
