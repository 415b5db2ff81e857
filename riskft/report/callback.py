"""Panels during training: PNG files in the run folder and images with masks in W&B."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib import colormaps

from riskft.data.cache import Prepared
from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import IGNORE_INDEX
from riskft.data.volumes import read_volume
from riskft.distributed import gather_objects
from riskft.report.heatmaps import Classes, Panel, case_figure, riskiest_slices, upright
from riskft.report.loggers import wandb_run
from riskft.report.statistics import save_figure
from riskft.risk.callback import RiskMapCallback
from riskft.risk.leep import class_prior
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary

Maps = tuple[RiskStore, RiskSummary]


class RiskPanelCallback(Callback):
    """Shows per-pixel risk heatmaps beside image, truth and prediction.

    At the start of ``fit`` the maps of a few training cases; after validations, and last after the last one, those of
    a few validation cases with the prediction. They need a ``RiskMapCallback`` in the trainer; without one nothing is
    drawn.

    Args:
        cases: How many cases of each kind, the first ones.
        subjects: Show these subjects instead, wherever they are in training or validation.
        every_n_epochs: Draw validation panels after every so many epochs as well (if it validates then); 0 for the
            end only.
    """

    def __init__(self, cases: int = 2, subjects: list[str] | None = None, every_n_epochs: int = 0) -> None:
        super().__init__()
        self.cases = cases
        self.subjects = subjects
        self.every_n_epochs = every_n_epochs
        self._predictions: dict[str, Classes] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws training cases."""
        maps, data = _maps(trainer), _data(trainer)
        if maps is not None and data is not None and trainer.is_global_zero:
            for case in self._chosen(data, "train"):
                self._show(trainer, maps, data, case, None, "risk/train")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the predictions of the chosen cases."""
        data = _data(trainer)
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if data is not None and fitting and isinstance(outputs, dict):
            chosen = {case.subject for case in self._chosen(data, "val")}
            if outputs["subject"] in chosen:
                self._predictions[outputs["subject"]] = outputs["prediction"].cpu().numpy().astype(np.uint8)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws validation cases if it is their turn."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._show_validation(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws validation cases as they were last predicted, whatever ended the training."""
        self._show_validation(trainer)

    def _chosen(self, data: RiskDataModule, split: str) -> list[Prepared]:
        cases = data.prepared(split)
        if self.subjects is None:
            return cases[: self.cases]
        return [case for case in cases if case.subject in self.subjects]

    def _show_validation(self, trainer: Trainer) -> None:
        """Draws the kept predictions of all ranks; all ranks must call it."""
        maps, data = _maps(trainer), _data(trainer)
        if maps is None or data is None or trainer.sanity_checking:
            return
        parts = gather_objects(self._predictions, "panels of the validation cases")
        gathered = {name: item for part in parts for name, item in part.items()}
        self._predictions = {}
        if trainer.is_global_zero:
            for case in data.prepared("val"):
                if case.subject in gathered:
                    self._show(trainer, maps, data, case, gathered[case.subject], "risk/val")

    def _show(
        self,
        trainer: Trainer,
        maps: Maps,
        data: RiskDataModule,
        case: Prepared,
        prediction: Classes | None,
        key: str,
    ) -> None:
        panel = read_panel(maps, case, prediction)
        kind = key.rpartition("/")[2]
        path = Path(trainer.default_root_dir) / "heatmaps" / f"{kind}_{RiskStore.safe_name(case.subject)}.png"
        save_figure(case_figure(panel, data.class_names), path)
        if (run := wandb_run(trainer)) is not None:
            run.log(wandb_images(panel, data.class_names, key, path))


def read_panel(maps: Maps, case: Prepared, prediction: Classes | None) -> Panel:
    """Reads what is shown of a case from the cache and the risk store."""
    store, summary = maps
    subject = case.to_subject()
    truth = subject["label"].data[0].numpy().astype(np.uint8)
    hardness = store.read_hardness(case.subject)[0].numpy()
    prior = np.append(class_prior(summary.joint).clamp_min(1e-12).log().numpy(), [0.0])
    weight, _ = read_volume(store.weight_path(case.subject))
    source, _ = read_volume(store.prediction_path(case.subject))
    relative = hardness + prior[np.where(truth == IGNORE_INDEX, len(prior) - 1, truth)]
    axes = nib.io_orientation(subject["image"].affine)

    def shown(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        turned: npt.NDArray[Any] = nib.apply_orientation(array, axes)  # to RAS, whatever the network takes
        return turned

    spacing = subject["image"].spacing
    return Panel(
        subject=case.subject,
        image=shown(subject["image"].data[0].numpy()),
        truth=shown(truth),
        hardness=shown(hardness),
        relative=shown(relative.astype(np.float32)),
        weight=shown(np.asarray(weight, dtype=np.float32)),
        prediction=None if prediction is None else shown(prediction),
        source=shown(np.asarray(source, dtype=np.uint8)),
        spacing=tuple(spacing[int(np.flatnonzero(axes[:, 0] == axis)[0])] for axis in range(3)),
    )


def wandb_images(panel: Panel, class_names: list[str], key: str, figure: Path) -> dict[str, Any]:
    """Returns W&B entries of a case: the whole figure, and image and heatmap with masks that can be switched."""
    import wandb

    index = riskiest_slices(panel.hardness, panel.truth)[2]
    labels = {**dict(enumerate(class_names)), IGNORE_INDEX: "ignored"}
    masks: dict[str, Any] = {
        name: {"mask_data": np.ascontiguousarray(upright(classes, 2, index)), "class_labels": labels}
        for name, classes in (("truth", panel.truth), ("prediction", panel.prediction), ("source", panel.source))
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


def _data(trainer: Trainer) -> RiskDataModule | None:
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, RiskDataModule) else None
