"""Segmentations from ``predict`` as NIfTI files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from riskft.data.datamodule import RiskDataModule
from riskft.data.native import write_native
from riskft.errors import InputError
from riskft.risk.store import RiskStore


class SegmentationWriter(BasePredictionWriter):
    """Writes ``<subject>.nii.gz``, uint8 class indices in the scan's own geometry, as each case is finished.

    Args:
        folder: Where files go.
        overwrite: Replace files that exist.
    """

    def __init__(self, folder: str | Path, overwrite: bool = False) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)
        self.overwrite = overwrite

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to overwrite before anything is computed."""
        existing = [str(path) for case in _data(trainer).prepared("predict") if (path := self._path(case)).exists()]
        if existing and not self.overwrite:
            raise InputError(
                f"{len(existing)} segmentations exist. Add --overwrite true, or choose another --out:", existing[:3]
            )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes one case."""
        case = _data(trainer).prepared_case(prediction["subject"])
        write_native(self._path(case), prediction["segmentation"], case.case)

    def _path(self, case: Any) -> Path:
        return self.folder / f"{RiskStore.safe_name(case.subject)}.nii.gz"


def _data(trainer: Trainer) -> RiskDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, RiskDataModule):
        raise InputError("SegmentationWriter needs a riskft.RiskDataModule.")
    return data
