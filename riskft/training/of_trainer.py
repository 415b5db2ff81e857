"""The data module and the run folder of a trainer."""

from pathlib import Path

from lightning.pytorch import Trainer

from riskft.data.datamodule import RiskDataModule
from riskft.run.folder import RunFolder


def data_of(trainer: Trainer | None) -> RiskDataModule | None:
    """Returns the trainer's data module, or None if it is not a ``RiskDataModule``."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, RiskDataModule) else None


def run_folder(trainer: Trainer) -> RunFolder:
    """Returns the folder of the run that the trainer works on."""
    return RunFolder(Path(trainer.default_root_dir))
