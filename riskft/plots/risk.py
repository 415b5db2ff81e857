"""Figures of the results of phase 1."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from riskft.plots.figure import new_figure
from riskft.risk.leep import conditional_from_joint
from riskft.risk.summary import RiskSummary


def conditional_figure(summary: RiskSummary, classes: Sequence[str], source_classes: Sequence[str]) -> Figure:
    """Draws P(y|z) with its numbers: one row per target class, one column per source class."""
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
