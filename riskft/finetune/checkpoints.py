"""Which checkpoints a run keeps."""

import warnings

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from riskft.data.datamodule import RiskDataModule


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` by ``val/dice`` and ``last.ckpt``; only the latter where there are no validation cases.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor="val/dice",
            mode="max",
            save_top_k=1,
            save_last=True,
            enable_version_counter=False,
        )
        # a resumed run finds its own files in the folder
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops monitoring where nothing is validated."""
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, RiskDataModule) and not data.prepared("val"):
            self.monitor = None
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)
