"""Runs as they were trained: networks, data and how whole volumes are segmented, from their folders."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from torch import Tensor

from riskft.cli import RiskCLI, run
from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError
from riskft.finetune.checkpoint_io import WholeCheckpointIO
from riskft.finetune.checkpoints import find_checkpoint
from riskft.finetune.module import RiskModule


class _BuildOnly(RiskCLI):
    """Builds what a run's config describes, and does nothing with it."""

    def _set_seed(self) -> None:
        """Leaves the seed of this process alone."""

    def before_instantiate_classes(self) -> None:
        """Does nothing: nothing goes into the run folder."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes a trainer that says on which device and with which precision the run is tested."""
        self.save_config_callback = None
        return LightningCLI.instantiate_trainer(self, logger=False, callbacks=[], enable_checkpointing=False)

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class LoadedRun:
    """A run built from its config; its weights are not loaded yet.

    Attributes:
        folder: The run folder.
        module: The module.
        data: The data, all splits prepared.
        trainer: Device and precision of its test.
    """

    folder: Path
    module: RiskModule
    data: RiskDataModule
    trainer: Trainer

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.trainer.strategy.root_device

    def load_weights(self) -> None:
        """Gets the module ready as ``riskft test`` does: the best checkpoint, on the device."""
        checkpoint = WholeCheckpointIO().load_checkpoint(
            find_checkpoint(self.folder), map_location="cpu", weights_only=True
        )
        self.module.load_state_dict(checkpoint["state_dict"], strict=self.module.strict_loading)
        self.module.setup("test")
        self.trainer.precision_plugin.convert_module(self.module.eval()).to(self.device)

    @torch.no_grad()
    def probabilities(self, image: Tensor) -> Tensor:
        """Returns the class probabilities (Y, X, Y, Z) float32 on the CPU of an image (1, C, X, Y, Z)."""
        plugin = self.trainer.precision_plugin
        with plugin.test_step_context():
            logits = self.module.infer(plugin.convert_input(image.to(self.device)))
            return logits.float().softmax(1)[0].cpu()


def load_run(folder: Path, accelerator: str | None = None) -> LoadedRun:
    """Builds a run from its config and prepares its data, which are in the cache if the run was tested.

    Raises:
        InputError: If the config or the data cannot be used (any more).
    """
    arguments = ["test", "--config", str(folder / "config.yaml"), "--trainer.strategy", "auto"]
    arguments += ["--trainer.devices", "1", "--trainer.num_nodes", "1"]
    arguments += ["--trainer.accelerator", accelerator] if accelerator else []
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            built = run(arguments, _BuildOnly)
    except SystemExit:
        message = said.getvalue().removeprefix("riskft: ").partition("\n(all options")[0].strip()
        raise InputError(f"{folder / 'config.yaml'}: {message}") from None
    except InputError as error:
        if not isinstance(error.__cause__, MisconfigurationException):  # Lightning's word for the trainer's options
            raise
        raise InputError(
            f"{folder / 'config.yaml'}: {error.__cause__} Choose another device with --accelerator."
        ) from error
    data: RiskDataModule = built.datamodule
    data.prepare_data()
    data.setup("test")
    return LoadedRun(folder, built.model, data, built.trainer)
