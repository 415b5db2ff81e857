"""Figures of phase 1: panels of a case on slices through the riskiest foreground, P(y|z), and the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure

from riskft.data.labels import IGNORE_INDEX
from riskft.plots.figure import new_figure
from riskft.risk.leep import conditional_from_joint
from riskft.risk.summary import RiskSummary

FloatVolume = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)
AXES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Panel:
    """The volumes of one case, each (X, Y, Z) on the prepared, RAS-oriented grid."""

    subject: str  #: The case.
    image: FloatVolume  #: The first channel.
    truth: Classes  #: Classes; 255 is ignored.
    hardness: FloatVolume  #: Transfer hardness in nats.
    #: Hardness relative to the class prior, h + log P(y), nats: above 0 the source does harm.
    relative_to_prior: FloatVolume
    weight: FloatVolume | None = None  #: Weights in the loss, or None for a case that is not trained on.
    prediction: Classes | None = None  #: The network's classes, or None.
    expected_class: Classes | None = None  #: The source's expected target classes, or None.
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  #: Voxel size in mm.


def riskiest_slices(hardness: FloatVolume, truth: Classes) -> tuple[int, int, int]:
    """Returns, per axis, the slice whose foreground has the largest total hardness (the middle without foreground)."""
    risk = np.where((truth > 0) & (truth != IGNORE_INDEX), hardness, 0)
    if not risk.any():
        x, y, z = (size // 2 for size in truth.shape)
        return x, y, z
    sums = [risk.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    x, y, z = (int(np.argmax(values)) for values in sums)
    return x, y, z


def upright(volume: npt.NDArray[Number], axis: int, index: int) -> npt.NDArray[Number]:
    """Returns a slice of a RAS volume for display: superior or anterior up, the subject's left on the right."""
    plane: npt.NDArray[Number] = np.take(volume, index, axis=axis).T[::-1]
    return plane if axis == 0 else plane[:, ::-1]


def case_figure(panel: Panel, class_names: Sequence[str]) -> Figure:
    """Draws the panel: one row per orthogonal slice and one column per volume, with colour bars for the risk."""
    overlays = {"truth": panel.truth, "source's expected class": panel.expected_class, "prediction": panel.prediction}
    shown = {title: classes for title, classes in overlays.items() if classes is not None}
    harm = panel.relative_to_prior
    heats = [
        ("transfer hardness (nats)", panel.hardness, "inferno", 0.0, _top(panel.hardness)),
        ("hardness relative to prior (nats)", harm, "PuOr_r", *_around(harm, 0.0)),
    ]
    if panel.weight is not None:
        heats.append(("weight in the loss", panel.weight, "RdBu_r", *_around(panel.weight, 1.0)))
    columns = 1 + len(shown) + len(heats)
    figure = new_figure(2.4 * columns, 7.6)
    grid = figure.subplots(3, columns, squeeze=False)
    low, high = (float(value) for value in np.percentile(panel.image, [1, 99.5]))
    slices = riskiest_slices(panel.hardness, panel.truth)
    for axis, index in enumerate(slices):
        first, second = (other for other in range(3) if other != axis)
        aspect = panel.spacing[second] / panel.spacing[first]
        image, truth = upright(panel.image, axis, index), upright(panel.truth, axis, index)
        foreground = (truth > 0) & (truth != IGNORE_INDEX)
        for axes in grid[axis]:
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        grid[axis, 0].set_ylabel(f"{AXES[axis]} {index}")
        for axes, classes in zip(grid[axis, 1:], shown.values(), strict=False):
            axes.imshow(overlay(upright(classes, axis, index)), aspect=aspect, interpolation="nearest")
        for axes, (_, volume, colours, bottom, top) in zip(grid[axis, -len(heats) :], heats, strict=True):
            plane = upright(volume, axis, index)
            heat = axes.imshow(plane, cmap=colours, vmin=bottom, vmax=top, aspect=aspect, interpolation="nearest")
            # contour needs both values, and at least two rows and columns
            if 0 < foreground.mean() < 1 and min(foreground.shape) > 1:
                axes.contour(foreground.astype(float), levels=[0.5], colors="lime", linewidths=0.6)
            if axis == 2:
                figure.colorbar(heat, ax=axes, location="bottom", shrink=0.9, pad=0.03)
    for axes, title in zip(grid[0], ["image", *shown, *(title for title, *_ in heats)], strict=True):
        axes.set_title(title, fontsize=9)
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names) if index)
    figure.suptitle(f"{panel.subject}    classes: {names}    green: border of the truth", fontsize=10)
    return figure


def overlay(classes: Classes) -> npt.NDArray[np.float64]:
    """Returns a slice's classes as RGBA; background and ignored voxels are transparent."""
    rgba: npt.NDArray[np.float64] = np.asarray(colormaps["tab10"](classes.astype(int) % 10))
    rgba[..., 3] = np.where((classes > 0) & (classes != IGNORE_INDEX), 0.65, 0)
    return rgba


def _top(volume: FloatVolume) -> float:
    return max(float(np.percentile(volume, 99.9)), 1e-3)


def _around(volume: FloatVolume, centre: float) -> tuple[float, float]:
    """Returns colour limits, symmetric around the centre, that hold all but the most extreme voxels."""
    spread = max(float(np.abs(np.percentile(volume, [0.1, 99.9]) - centre).max()), 1e-3)
    return centre - spread, centre + spread


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
