"""The panel of an unlabelled scan: image, prediction and expected risk on the slices of the highest risk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from riskft.estimate.table import near_foreground
from riskft.plots.figure import new_figure
from riskft.plots.heatmaps import AXES, Classes, FloatVolume, overlay, upright

COLUMNS = ("image", "prediction", "expected risk")


@dataclass(frozen=True)
class UnlabelledPanel:
    """The volumes of one scan, each (X, Y, Z) on a RAS-oriented grid."""

    title: str
    image: FloatVolume  #: The first channel.
    prediction: Classes
    risk: FloatVolume  #: Expected risk, 0 to 1.
    spacing: tuple[float, float, float]  #: Voxel size in mm.


def risky_slices(panel: UnlabelledPanel) -> list[int]:
    """Returns, per axis, the slice with the largest total risk in and near the predicted foreground, if any."""
    near = near_foreground(panel.prediction, panel.spacing)
    risk = np.where(near, panel.risk, 0) if near.any() else panel.risk
    return [int(np.argmax(risk.sum(axis=tuple(i for i in range(3) if i != axis)))) for axis in range(3)]


def unlabelled_figure(panel: UnlabelledPanel, class_names: Sequence[str]) -> Figure:
    """Draws the panel: one row per orthogonal slice and one column per volume."""
    figure = new_figure(7.2, 7.6)
    grid = figure.subplots(3, 3)
    low, high = (float(value) for value in np.percentile(panel.image, [1, 99.5]))
    for axis, index in enumerate(risky_slices(panel)):
        first, second = (other for other in range(3) if other != axis)
        aspect = panel.spacing[second] / panel.spacing[first]
        for axes in grid[axis]:
            plane = upright(panel.image, axis, index)
            axes.imshow(plane, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
        grid[axis, 0].set_ylabel(f"{AXES[axis]} {index}")
        grid[axis, 1].imshow(overlay(upright(panel.prediction, axis, index)), aspect=aspect, interpolation="nearest")
        risk = upright(panel.risk, axis, index)
        heat = grid[axis, 2].imshow(
            risk, cmap="inferno", vmin=0, vmax=1, alpha=_opacity(risk), aspect=aspect, interpolation="nearest"
        )
    figure.colorbar(heat, ax=grid[2, 2], location="bottom", shrink=0.9, pad=0.03)
    for axes, title in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=9)
    names = ", ".join(f"{index} {name}" for index, name in enumerate(class_names) if index)
    figure.suptitle(f"{panel.title}\nclasses: {names:.200}", fontsize=9)
    return figure


def _opacity(risk: FloatVolume) -> npt.NDArray[np.float64]:
    """Returns an opacity that shows the image where there is no risk."""
    opacity: npt.NDArray[np.float64] = np.clip(4.0 * risk, 0, 0.8)
    return opacity
