"""What phase 1 found, as figures, files and W&B entries."""

import csv
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from riskft.files import atomic_path, write_json, write_text
from riskft.report.loggers import wandb_run
from riskft.risk.leep import conditional_from_joint
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary

log = logging.getLogger(__name__)


def log_risk_summary(
    trainer: Trainer, summary: RiskSummary, classes: Sequence[str], source_classes: Sequence[str], store: RiskStore
) -> None:
    """Writes the summary into the run folder's ``risk`` and to the loggers, and says the gist in the log."""
    log.info(
        "Phase 1: LEEP %.4f nats, H(Y) %.4f: the source explains %.0f %% of the labels' entropy; mean hardness %s",
        summary.leep,
        summary.label_entropy,
        100 * summary.knowledge,
        ", ".join(f"{name} {value:.3f}" for name, value in zip(classes, summary.class_hardness, strict=True)),
    )
    folder = Path(trainer.default_root_dir) / "risk"
    write_json(folder / "manifest.json", store.inputs)
    maps = store.weights_folder.resolve()
    places = {"maps": str(maps), "maps_from_here": os.path.relpath(maps, folder.resolve())}
    write_json(folder / "summary.json", {**places, **summary.to_json()})
    write_text(folder / "classes.csv", class_table(summary, classes))
    figures = {
        "conditional": conditional_figure(summary, classes, source_classes),
        "weights": weight_figure(summary, classes),
    }
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    values = {
        "risk/leep": summary.leep,
        "risk/label_entropy": summary.label_entropy,
        "risk/knowledge": summary.knowledge,
    }
    for name, hardness, weight in zip(classes, summary.class_hardness, summary.class_weight, strict=True):
        values |= {f"risk/hardness/{name}": hardness, f"risk/weight/{name}": weight}
    for logger in trainer.loggers:
        logger.log_metrics(values, step=0)
    if (run := wandb_run(trainer)) is not None:
        import wandb

        images: dict[str, Any] = {f"risk/{name}": wandb.Image(str(folder / f"{name}.png")) for name in figures}
        counts = np.array(summary.weight_counts)
        images["risk/weight_histogram"] = wandb.Histogram(
            np_histogram=(counts[:80], np.array(summary.weight_edges[:81]))
        )
        run.log(images)


def class_table(summary: RiskSummary, classes: Sequence[str]) -> str:
    """Returns CSV: class, voxels, mean hardness in nats, that of a blind source (-log P(y)), mean weight."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["class", "voxels", "mean_hardness_nats", "prior_hardness_nats", "mean_weight"])
    total = sum(summary.class_voxels)
    for row in zip(classes, summary.class_voxels, summary.class_hardness, summary.class_weight, strict=True):
        name, voxels, hardness, weight = row
        prior = -float(np.log(voxels / total)) if voxels else float("nan")
        writer.writerow([name, voxels, f"{hardness:.6g}", f"{prior:.6g}", f"{weight:.6g}"])
    return buffer.getvalue()


def conditional_figure(summary: RiskSummary, classes: Sequence[str], source_classes: Sequence[str]) -> Figure:
    """Draws P(y|z), a row a target class and a column a source class, each cell with its number."""
    values = conditional_from_joint(summary.joint).numpy()
    figure = new_figure(2.2 + 0.9 * values.shape[1], 1.4 + 0.6 * values.shape[0])
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axes.set_xticks(range(values.shape[1]), list(source_classes), rotation=30, ha="right")
    axes.set_yticks(range(values.shape[0]), list(classes))
    axes.set_xlabel("source class z")
    axes.set_ylabel("target class y")
    axes.set_title(f"P(y|z)   LEEP = {summary.leep:.3f} nats", fontsize=10)
    figure.colorbar(image, ax=axes)
    return figure


def weight_figure(summary: RiskSummary, classes: Sequence[str]) -> Figure:
    """Draws the histogram of weights over all training voxels, and mean hardness and weight per class."""
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    edges, counts = np.array(summary.weight_edges[:81]), np.array(summary.weight_counts[:80])
    left.stairs(np.maximum(counts, 0.5), edges, fill=True, baseline=0.5)
    left.set_yscale("log")
    used = np.flatnonzero(counts)
    if used.size:
        left.set_xlim(edges[used[0]] - 0.1, edges[used[-1] + 1] + 0.1)
    left.set_xlabel("weight")
    left.set_ylabel("training voxels")
    beyond = sum(summary.weight_counts[80:])
    left.set_title(f"weights ({beyond} voxels above 4)" if beyond else "weights", fontsize=10)
    place = np.arange(len(classes))
    right.bar(place - 0.2, summary.class_hardness, 0.4, label="mean hardness (nats)")
    right.bar(place + 0.2, summary.class_weight, 0.4, label="mean weight")
    right.set_xticks(place, list(classes), rotation=20, ha="right")
    right.legend(fontsize=8)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Returns a figure of the given size in inches that no global state of pyplot knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
