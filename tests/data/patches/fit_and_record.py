"""Trains for three epochs and writes which subjects this process saw."""

import json
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

from riskft import LabelMap, ListSplit, ManifestReader, RiskDataModule


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 1, 1)
        self.train_names: dict[int, list[str]] = {}
        self.val_names: list[str] = []

    def training_step(self, batch, batch_idx):
        self.train_names.setdefault(self.current_epoch, []).extend(batch.subjects)
        return self.layer(batch.image).mean()

    def validation_step(self, batch, batch_idx):
        self.val_names.append(batch.subject)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main(manifest: str, folder: str, devices: str) -> None:
    data = RiskDataModule(
        ManifestReader(manifest),
        ["t1"],
        LabelMap({"blob": [1, 2]}),
        ListSplit(train=["case00", "case01", "case02", "case03"], val=["case04"]),
        cache_dir=f"{folder}/cache",
        patch_size=[8, 8, 8],
        patches_per_volume=2,
        batch_size=2,
        queue_length=3,
    )
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=int(devices),
        strategy="ddp" if devices != "1" else "auto",
        max_epochs=3,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    torch.manual_seed(1000 + trainer.global_rank)
    trainer.fit(module, datamodule=data)
    seen = {"train": module.train_names, "val": module.val_names}
    (Path(folder) / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))
