"""The record of a run in its folder: its config in full, and what its weights are made with."""

from dataclasses import asdict
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from riskft.files import write_json, write_text
from riskft.run.commit import git_commit
from riskft.run.wandb_id import keep_run_id
from riskft.training.data_of import data_of
from riskft.training.module import RiskModule
from riskft.training.run_folder import run_folder


class SaveRun(SaveConfigCallback):
    """Keeps the config in the run folder, and tells the loggers what was run on what."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keeps what every command accepts and may be given again: without checkpoint, without leave to overwrite.

        Only now, when data and source are known to be good, does a new run remove the one that was there.
        """
        if self.config.get("ckpt_path") is None and trainer.is_global_zero:
            folder = run_folder(trainer)
            if self.config.run.overwrite:
                folder.clear()
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger) and isinstance(logger.version, str):
                    keep_run_id(folder, logger.version)
        self.config = self.config.clone()
        self.config.pop("ckpt_path", None)
        self.config.run.overwrite = False
        data = data_of(trainer)
        if data is not None:
            if self.config.data.labels is None:
                # found in the data set's description, which need not be there when new scans are predicted
                self.config.data.labels = asdict(data.labels)
            # in the order of the weights, if they are resumed
            self.config.data.labels["classes"] = data.labels.classes
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the config, and logs it with the git commit and the fingerprints of the data."""
        text = self.parser.dump(self.config, skip_none=False)
        write_text(run_folder(trainer).config, text)
        config = yaml.safe_load(text)
        record: dict[str, Any] = {"config": config, "git_commit": git_commit()}
        data = data_of(trainer)
        if data is not None:
            record["data_fingerprint"] = {split: data.fingerprint(split) for split in ("train", "val", "test")}
        for logger in trainer.loggers:
            logger.log_hyperparams(record)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes ``record.json``, which tells other commands what a run is, whatever it is called."""
        if isinstance(pl_module, RiskModule) and pl_module.record is not None and trainer.is_global_zero:
            write_json(run_folder(trainer).record, pl_module.record.plain())
