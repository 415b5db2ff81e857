"""Risk panels during training and test: PNG files in the run folder, images with masks in W&B."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib import colormaps

from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.distributed import gather_objects
from riskft.evaluation.cases import Segmentation
from riskft.evaluation.metrics import CaseScore
from riskft.plots.figure import save_figure
from riskft.plots.heatmaps import Classes, Panel, case_figure, riskiest_slices, upright
from riskft.progress import track
from riskft.training.case_panel import Maps, read_panel, unseen_panel
from riskft.training.found_risk import usable_risk
from riskft.training.loggers import wandb_run
from riskft.training.module import RiskModule
from riskft.training.of_trainer import data_of, run_folder
from riskft.training.risk_maps import RiskMapCallback
from riskft.training.segmentation import tested_logits


class RiskPanelCallback(Callback):
    """Shows per-pixel risk heatmaps beside image, ground truth and prediction.

    It draws a few training cases after the first epoch, so that training need not wait for them, a few validation cases
    with their prediction when training ends, and the best, median and worst case by mean Dice after ``test`` (one pass
    of the source network per case). Without a ``RiskMapCallback`` in the trainer it draws nothing.

    Args:
        cases: How many of the first training and validation cases to draw. 0 draws no test cases either.
        subjects: Draw these subjects instead, in whichever split they are.
        every_n_epochs: Also draw validation panels after every n-th epoch, if it validates. 0: only at the end.
    """

    def __init__(self, cases: int = 2, subjects: list[str] | None = None, every_n_epochs: int = 0) -> None:
        super().__init__()
        self.cases = cases
        self.subjects = subjects
        self.every_n_epochs = every_n_epochs
        self._predictions: dict[str, Classes] = {}
        self._training_drawn = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that the training cases of this fit are not drawn yet."""
        self._training_drawn = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws training cases after the first epoch."""
        self._show_training(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the predictions of the cases to draw."""
        data = data_of(trainer)
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if data is not None and fitting and isinstance(outputs, Segmentation):
            chosen = {case.subject for case in self._chosen(data, "val")}
            if outputs.subject in chosen:
                self._predictions[outputs.subject] = outputs.classes

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws validation cases every ``every_n_epochs``."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._show_validation(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the latest predictions of the validation cases, however training ended."""
        self._show_training(trainer)
        self._show_validation(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the best, the median and the worst test case."""
        data = data_of(trainer)
        mapped = any(isinstance(callback, RiskMapCallback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if not trainer.is_global_zero or data is None or not mapped or not isinstance(pl_module, RiskModule):
            return
        chosen = best_median_worst(pl_module.tested) if self.cases else []
        chosen = chosen if self.subjects is None else self.subjects
        cases = [case for case in data.prepared("test") if case.subject in chosen]
        if not cases:
            return
        # missing heatmaps must not fail a test
        found = usable_risk(run_folder(trainer), pl_module, data, "No risk heatmaps of test cases")
        if found is None:
            return
        found.source.network.to(pl_module.device)
        for path in run_folder(trainer).heatmaps.glob("test_*.png"):
            path.unlink()  # may be from another checkpoint
        for case in track(cases, len(cases), "Risk heatmaps of test cases"):
            logits = tested_logits(trainer, pl_module, read_case(case).image)
            prediction = logits.argmax(1)[0].to(torch.uint8).cpu().numpy()
            self._draw(trainer, unseen_panel(found, pl_module, case, prediction), data, "risk/test")

    def _chosen(self, data: RiskDataModule, split: str) -> list[PreparedCase]:
        cases = data.prepared(split)
        if self.subjects is None:
            return cases[: self.cases]
        return [case for case in cases if case.subject in self.subjects]

    def _show_training(self, trainer: Trainer) -> None:
        """Draws training cases unless this fit has already done so."""
        maps, data = _maps(trainer), data_of(trainer)
        if not self._training_drawn and maps is not None and data is not None and trainer.is_global_zero:
            for case in self._chosen(data, "train"):
                self._draw(trainer, read_panel(maps, case, None), data, "risk/train")
        self._training_drawn = True

    def _show_validation(self, trainer: Trainer) -> None:
        """Draws the kept predictions of all ranks. All ranks must call it."""
        maps, data = _maps(trainer), data_of(trainer)
        if maps is None or data is None or trainer.sanity_checking:
            return
        parts = gather_objects(self._predictions, "panels of the validation cases")
        gathered = {name: item for part in parts for name, item in part.items()}
        self._predictions = {}
        if trainer.is_global_zero:
            for case in data.prepared("val"):
                if case.subject in gathered:
                    self._draw(trainer, read_panel(maps, case, gathered[case.subject]), data, "risk/val")

    def _draw(self, trainer: Trainer, panel: Panel, data: RiskDataModule, key: str) -> None:
        kind = key.rpartition("/")[2]
        path = run_folder(trainer).panel(kind, panel.subject)
        save_figure(case_figure(panel, data.class_names), path)
        if (run := wandb_run(trainer)) is not None:
            run.log(wandb_images(panel, data.class_names, key, path))


def best_median_worst(scores: Sequence[CaseScore]) -> list[str]:
    """Returns the subjects with the best, median and worst mean Dice over classes, without repeats."""
    dice: dict[str, list[float]] = {}
    for score in scores:
        if not math.isnan(score.dice):
            dice.setdefault(score.subject, []).append(score.dice)
    ordered = sorted(dice, key=lambda subject: (-float(np.mean(dice[subject])), subject))
    return [ordered[at] for at in sorted({0, len(ordered) // 2, len(ordered) - 1})] if ordered else []


def wandb_images(panel: Panel, class_names: list[str], key: str, figure: Path) -> dict[str, Any]:
    """Returns a case's W&B entries: the whole figure, and image and heatmap with masks to switch on and off."""
    import wandb

    index = riskiest_slices(panel.hardness, panel.truth)[2]
    labels = {**dict(enumerate(class_names)), IGNORE_INDEX: "ignored"}
    masks: dict[str, Any] = {
        name: {"mask_data": np.ascontiguousarray(upright(classes, 2, index)), "class_labels": labels}
        for name, classes in (
            *(("truth", panel.truth), ("prediction", panel.prediction)),
            ("expected_class", panel.expected_class),
        )
        if classes is not None
    }
    image = upright(panel.image, 2, index).astype(np.float64)
    low, high = np.percentile(panel.image, [1, 99.5])
    heat = upright(panel.hardness, 2, index) / max(float(np.percentile(panel.hardness, 99.9)), 1e-3)
    pictures = {
        "image": np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255,
        "hardness": colormaps["inferno"](np.clip(heat, 0, 1))[..., :3] * 255,
    }
    entries: dict[str, Any] = {f"{key}/{panel.subject}/panel": wandb.Image(str(figure), caption=panel.subject)}
    for name, pixels in pictures.items():
        caption = f"{panel.subject}, axial slice {index}"
        entries[f"{key}/{panel.subject}/{name}"] = wandb.Image(pixels.astype(np.uint8), masks=masks, caption=caption)
    return entries


def _maps(trainer: Trainer) -> Maps | None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RiskMapCallback) and callback.store is not None and callback.summary is not None:
            return callback.store, callback.summary
    return None
