"""Writes the full config and the record of a run into its folder."""

from dataclasses import asdict
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from riskft.files import write_json, write_text
from riskft.run.record import git_commit
from riskft.run.wandb_files import keep_run_id
from riskft.training.module import RiskModule
from riskft.training.of_trainer import data_of, run_folder


class SaveRun(SaveConfigCallback):
    """Writes the config into the run folder, and logs config, git commit and data fingerprints."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves a config that you can give to every command: it resumes no checkpoint and overwrites nothing.

        A new run removes the previous one only here, after the checks of data and source.
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
                # read from the data set's description, which may be missing when new scans are predicted
                self.config.data.labels = asdict(data.labels)
            # a resumed run keeps the class order of its weights
            self.config.data.labels["classes"] = data.labels.classes
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the config, and logs it with the git commit and the data fingerprints."""
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
        """Writes ``record.json``, which tells other commands what the run is."""
        if isinstance(pl_module, RiskModule) and pl_module.record is not None and trainer.is_global_zero:
            write_json(run_folder(trainer).record, pl_module.record.plain())
