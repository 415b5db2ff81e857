"""Writes risk maps as image files, for ``riskft riskmap``."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.distributed import gather_objects, together
from riskft.errors import InputError
from riskft.files import write_text
from riskft.progress import track
from riskft.risk.export import export_case, refuse_existing, summary_csv
from riskft.training.of_trainer import data_of
from riskft.training.risk_maps import RiskMapCallback


class RiskExport(Callback):
    """Writes the maps into a folder after phase 1, each process its share; replaces files only with ``overwrite``."""

    def __init__(self, folder: Path, overwrite: bool) -> None:
        super().__init__()
        self.folder = folder
        self.overwrite = overwrite

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes this process's share of the maps. The first process also writes the summary."""
        data = data_of(trainer)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        store = next(callback.store for callback in callbacks if isinstance(callback, RiskMapCallback))
        if store is None or data is None:
            raise InputError("riskmap needs a riskft.RiskDataModule and a source with a checkpoint.")
        with together("writing risk maps"):
            mine = data.prepared("train")[trainer.global_rank :: trainer.world_size]
            exported = (export_case(self.folder, store, case, data.class_names) for case in mine)
            rows = [row for own in track(exported, len(mine), "Writing risk maps") for row in own]
        gathered = [row for part in gather_objects(rows, "summary of the risk maps") for row in part]
        if trainer.is_global_zero:
            write_text(self.folder / "risk_summary.csv", summary_csv(gathered))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses to overwrite files before phase 1."""
        data = data_of(trainer)
        if data is not None:
            with together("looking for risk maps that exist"):
                refuse_existing(self.folder, [case.case for case in data.prepared("train")], self.overwrite)
