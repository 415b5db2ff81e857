"""The data module of a trainer."""

from lightning.pytorch import Trainer

from riskft.data.datamodule import RiskDataModule


def data_of(trainer: Trainer | None) -> RiskDataModule | None:
    """Returns the trainer's data module, or None if it is not a ``RiskDataModule``."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, RiskDataModule) else None
