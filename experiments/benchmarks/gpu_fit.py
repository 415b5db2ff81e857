"""Measures what ``gpu.py`` needs a whole ``riskft fit`` for: phase 1, and the wait for patches."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from memory import config, write_cohort
from monai.networks.nets import UNet
from paired import Row, row

from riskft.build import Command
from riskft.data.patches.batch import read_case
from riskft.training.module import RiskModule
from riskft.training.risk_maps import RiskMapCallback


def now(device: torch.device) -> float:
    """Waits for the device to finish, and returns the time in ms."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


class Waits(Callback):
    """Measures how long each step waits for its patches, and how long it takes once it has them."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.worked: list[float] = []
        self._last: float | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._begun = now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        end = now(pl_module.device)
        if self._last is not None and batch_idx:  # not the time between epochs
            self.waited.append(self._begun - self._last)
            self.worked.append(end - self._begun)
        self._last = end


class TimedMaps(RiskMapCallback):
    """Times phase 1, and then a bare pass of the inferer over the same prepared volumes."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        start = now(device)
        super().setup(trainer, pl_module, stage)
        self.took = now(device) - start
        assert isinstance(pl_module, RiskModule)
        network = pl_module.load_source().network.to(device).eval()
        start = now(device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for case in trainer.datamodule.prepared("train"):  # type: ignore[attr-defined]
                pl_module.inferer(read_case(case).image.to(device), network).softmax(1)
        self.bare = now(device) - start


def fit(folder: Path, device: torch.device, volume: int, patch: int, channels: Sequence[int]) -> Iterator[Row]:
    """Trains on a cohort of noise and yields the rows of phase 1 and of the wait for patches."""
    path = config(folder, write_cohort(folder / "cohort", 8, [volume] * 3), patch, 8 if device.type == "cuda" else 0)
    content = json.loads(path.read_text())
    network = content["model"]["source"]["network"]["init_args"]
    network |= {"channels": list(channels), "strides": [2] * (len(channels) - 1), "num_res_units": 2}
    torch.save(UNet(**network).state_dict(), content["model"]["source"]["checkpoint"])
    content["data"]["preprocessing"] = {"spacing": None}
    content["model"] |= {"channels_last": True, "loss": "riskft.RefreshedLoss"}
    content["trainer"] |= {
        "callbacks": [{"class_path": "gpu_fit.TimedMaps"}, {"class_path": "gpu_fit.Waits"}],
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "precision": "bf16-mixed",
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
    }
    path.write_text(json.dumps(content))
    with Command(["fit", "--config", str(path)]) as command:
        command.build()
        command.run()
        callbacks = command.trainer.callbacks
    maps = next(one for one in callbacks if isinstance(one, TimedMaps))
    waits = next(one for one in callbacks if isinstance(one, Waits))
    yield row("phase 1, 8 volumes", "a bare pass", "ms", [maps.took], [maps.bare])
    totals = [sum(waits.waited)], [sum(waits.worked)]  # a few steps do most of the waiting
    yield row("waiting for patches, two epochs", "the steps themselves", "ms", *totals, aim=0.05)
