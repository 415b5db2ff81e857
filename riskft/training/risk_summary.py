"""Writes the results of phase 1 into the run folder and the loggers."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from riskft.files import csv_text, write_json, write_text
from riskft.plots.figure import save_figure
from riskft.plots.heatmaps import conditional_figure, weight_figure
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.training.loggers import wandb_run
from riskft.training.of_trainer import run_folder

log = logging.getLogger(__name__)


def log_risk_summary(
    trainer: Trainer, summary: RiskSummary, classes: Sequence[str], source_classes: Sequence[str], store: RiskStore
) -> None:
    """Writes the summary into the run folder's ``risk`` and the loggers, and logs its main numbers."""
    log.info(
        "Phase 1: LEEP %.4f nats, H(Y) %.4f: the source explains %.0f %% of the labels' entropy; mean hardness %s",
        summary.leep,
        summary.label_entropy,
        100 * summary.knowledge,
        ", ".join(f"{name} {value:.3f}" for name, value in zip(classes, summary.class_hardness, strict=True)),
    )
    folder = run_folder(trainer).risk
    write_json(folder.manifest, store.inputs)
    write_json(folder.summary, {**folder.places(store.weights_folder), **summary.to_json()})
    write_text(folder.classes, class_table(summary, classes))
    figures = {
        "conditional": conditional_figure(summary, classes, source_classes),
        "weights": weight_figure(summary, classes),
    }
    for name, figure in figures.items():
        save_figure(figure, folder.figure(name))
    values = {f"risk/{name}": getattr(summary, name) for name in ("leep", "label_entropy", "knowledge")}
    for name, hardness, weight in zip(classes, summary.class_hardness, summary.class_weight, strict=True):
        values |= {f"risk/hardness/{name}": hardness, f"risk/weight/{name}": weight}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=0)
    if (run := wandb_run(trainer)) is not None:
        import wandb

        images: dict[str, Any] = {f"risk/{name}": wandb.Image(str(folder.figure(name))) for name in figures}
        counts = np.array(summary.weight_counts)
        images["risk/weight_histogram"] = wandb.Histogram(
            np_histogram=(counts[:80], np.array(summary.weight_edges[:81]))
        )
        run.log(images)


def class_table(summary: RiskSummary, classes: Sequence[str]) -> str:
    """Returns CSV: class_name, voxels, mean hardness and prior hardness -log P(y) in nats, mean weight."""
    voxels = np.array(summary.class_voxels, dtype=float)
    prior = -np.log(np.where(voxels > 0, voxels, np.nan) / voxels.sum())
    numbers = zip(summary.class_hardness, prior, summary.class_weight, strict=True)
    return csv_text(
        ["class_name", "voxels", "mean_hardness_nats", "prior_hardness_nats", "mean_weight"],
        [
            [name, count, *(f"{value:.6g}" for value in values)]
            for name, count, values in zip(classes, summary.class_voxels, numbers, strict=True)
        ],
    )
