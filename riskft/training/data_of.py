"""The data of a trainer."""

from lightning.pytorch import Trainer

from riskft.data.datamodule import RiskDataModule


def data_of(trainer: Trainer | None) -> RiskDataModule | None:
    """Returns what a trainer trains on or uses, or None if that is not a data module of riskft."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, RiskDataModule) else None
