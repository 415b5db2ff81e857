"""Which checkpoints a run keeps: the best, and the latest to go on from."""

import warnings

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from riskft.data.datamodule import RiskDataModule


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` by ``val/dice``; nothing where there are no validation cases.

    Args:
        folder: Where the file goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(dirpath=folder, filename="best", monitor="val/dice", mode="max", enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops monitoring where nothing is validated."""
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, RiskDataModule) and not data.prepared("val"):
            self.monitor = None
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)


def run_checkpoints(folder: str) -> list[Callback]:
    """Returns the callbacks that keep ``best.ckpt`` and, after each epoch, ``last.ckpt``.

    Two callbacks, because ``ModelCheckpoint(save_last=True)`` writes the latter only along with a new best, and a
    resumed run would fall back to that.
    """
    # a resumed run finds its own files in the folder
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    latest = ModelCheckpoint(
        dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    return [BestCheckpoint(folder), latest]
