"""Panels of a case: image, truth, prediction and the risk heatmap, on slices through the riskiest foreground."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure

from riskft.data.labels import IGNORE_INDEX
from riskft.report.statistics import new_figure

Volume = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]
AXES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Panel:
    """What is shown of one case, all (X, Y, Z) on the prepared, RAS-oriented grid.

    Attributes:
        subject: The case.
        image: The first channel.
        truth: Classes; 255 is ignored.
        hardness: Transfer hardness in nats.
        weight: Weights in the loss.
        prediction: The network's classes, or None.
        source: The source's expected target classes, or None.
        spacing: Voxel size in mm.
    """

    subject: str
    image: Volume
    truth: Classes
    hardness: Volume
    weight: Volume
    prediction: Classes | None = None
    source: Classes | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


def riskiest_slices(hardness: Volume, truth: Classes) -> tuple[int, int, int]:
    """Returns, per axis, the slice whose foreground has the largest summed hardness (the middle if there is none)."""
    risk = np.where((truth > 0) & (truth != IGNORE_INDEX), hardness, 0)
    if not risk.any():
        return tuple(size // 2 for size in truth.shape)  # type: ignore[return-value]
    sums = [risk.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return tuple(int(np.argmax(values)) for values in sums)  # type: ignore[return-value]


def upright(volume: npt.NDArray[np.generic], axis: int, index: int) -> npt.NDArray[np.generic]:
    """Returns a slice of a RAS volume as it is looked at: superior or anterior up, the subject's left at the right."""
    plane = np.take(volume, index, axis=axis).T[::-1]
    return plane if axis == 0 else plane[:, ::-1]


def case_figure(panel: Panel, class_names: Sequence[str]) -> Figure:
    """Draws the panel: a row for each of three orthogonal slices, a column for each thing, colour bars for the risk."""
    colours = colormaps["tab10"]
    slices = riskiest_slices(panel.hardness, panel.truth)
    shown: list[tuple[str, Classes | None]] = [("truth", panel.truth)]
    shown += [("source's expectation", panel.source)] if panel.source is not None else []
    shown += [("prediction", panel.prediction)] if panel.prediction is not None else []
    columns = 1 + len(shown) + 2
    figure = new_figure(2.5 * columns + 1, 7.6)
    grid = figure.subplots(3, columns)
    low, high = (float(value) for value in np.percentile(panel.image, [1, 99.5]))
    top = max(float(np.percentile(panel.hardness, 99.9)), 1e-3)
    spread = max(float(np.abs(np.percentile(panel.weight, [0.1, 99.9]) - 1).max()), 1e-3)
    for row, (axis, index) in enumerate(zip(range(3), slices, strict=True)):
        first, second = (other for other in range(3) if other != axis)
        aspect = panel.spacing[second] / panel.spacing[first]
        image = upright(panel.image, axis, index)
        for column in range(columns):
            axes = grid[row, column]
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        grid[row, 0].set_ylabel(f"{AXES[axis]} {index}")
        for column, (_, classes) in enumerate(shown, start=1):
            if classes is not None:
                overlay = colours(upright(classes, axis, index).astype(int) % 10)
                labelled = upright(classes, axis, index)
                overlay[..., 3] = np.where((labelled > 0) & (labelled != IGNORE_INDEX), 0.65, 0)
                grid[row, column].imshow(overlay, aspect=aspect, interpolation="nearest")
        heat = grid[row, -2].imshow(
            upright(panel.hardness, axis, index),
            cmap="inferno",
            vmin=0,
            vmax=top,
            aspect=aspect,
        )
        tint = grid[row, -1].imshow(
            upright(panel.weight, axis, index),
            cmap="RdBu_r",
            vmin=1 - spread,
            vmax=1 + spread,
            aspect=aspect,
        )
        truth = (upright(panel.truth, axis, index) > 0).astype(float)
        for axes in (grid[row, -2], grid[row, -1]):
            if truth.any():
                axes.contour(truth, levels=[0.5], colors="lime", linewidths=0.6)
    for column, (title, _) in enumerate(shown, start=1):
        grid[0, column].set_title(title, fontsize=10)
    grid[0, 0].set_title("image", fontsize=10)
    grid[0, -2].set_title("transfer hardness (nats)", fontsize=10)
    grid[0, -1].set_title("weight in the loss", fontsize=10)
    figure.colorbar(heat, ax=grid[:, -2], shrink=0.5, location="bottom", pad=0.02)
    figure.colorbar(tint, ax=grid[:, -1], shrink=0.5, location="bottom", pad=0.02)
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names) if index)
    figure.suptitle(f"{panel.subject}    classes: {names}    green: border of the truth", fontsize=10)
    return figure
