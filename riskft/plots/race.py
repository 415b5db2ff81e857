"""The curves of a race."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from riskft.analysis.curves import LearningCurve
from riskft.plots.figure import COLOURS, new_figure


def race_figure(marks: Mapping[str, LearningCurve], curves: Mapping[str, LearningCurve], winner: str) -> Figure:
    """Draws Dice by step, one line per candidate: points at the rungs, and thin lines for all validations."""
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    for place, (name, points) in enumerate(marks.items()):
        colour, line = COLOURS[place % len(COLOURS)], ("-", "--", ":")[place // len(COLOURS) % 3]
        curve = curves.get(name, LearningCurve((), ()))
        axes.plot(curve.steps, curve.values, line, color=colour, linewidth=0.8, alpha=0.6)
        label = f"{name} (won)" if name == winner else name
        width = 2.2 if name == winner else 1.4
        axes.plot(points.steps, points.values, line, marker="o", color=colour, linewidth=width, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("validation Dice")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure
