"""Figures of the report as inline SVG that takes the text colour of the page, dark or light."""

import io
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import quoteattr

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from riskft.analysis.comparison import ComparisonRow, MetricUnit
from riskft.analysis.curves import LearningCurve
from riskft.plots.figure import COLOURS, new_figure

# a colour that nothing else uses, replaced by the page's text colour
INK = "#010203"
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may hold a $
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLUMNS = 4
# for more methods than colours
LINES = ("-", "--", ":", "-.")


def forest_svg(rows: Sequence[ComparisonRow], unit: MetricUnit) -> str:
    """Draws each method's difference from the baseline with its interval, one plot per class, for a study's rows."""
    compared = [row for row in rows if not row.is_baseline]
    # the same colour as in the other figures, which show the baseline too
    colours = method_colours([row.method for row in rows])
    methods = list(dict.fromkeys(row.method for row in compared))
    classes = list(dict.fromkeys(row.class_name for row in compared))
    with mpl.rc_context({**STYLE, "svg.hashsalt": "forest"}):
        figure, grid = _grid(len(classes), 0.34 * len(methods) + 1.1, shared="all")
        for axes, class_name in zip(grid, classes, strict=True):
            axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
            for row in compared:
                if row.class_name == class_name and np.isfinite(row.difference):
                    place = methods.index(row.method)
                    colour = colours[row.method]
                    axes.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
                    axes.plot(row.difference, place, "o", color=colour, markersize=6)
            axes.set_title(class_name, fontsize=9)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.tick_params(labelbottom=True, labelleft=axes in grid[::COLUMNS])
            axes.set_xlabel(f"difference ({unit.unit})")
        return _svg(figure, "Forest plot of the paired differences from the baseline, with 95 % intervals")


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each method, by the order of the methods."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(dict.fromkeys(methods))}


def boxes_svg(values: Mapping[str, Mapping[str, Sequence[float]]], unit: MetricUnit) -> str:
    """Draws one box per method and one point per case (its mean over seeds, in the unit), one plot per class."""
    colours = method_colours([name for part in values.values() for name in part])
    methods = list(colours)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "boxes"}):
        figure, grid = _grid(len(values), 0.34 * len(methods) + 1.1, shared="y")
        for axes, (class_name, part) in zip(grid, values.items(), strict=True):
            for place, method in enumerate(methods):
                numbers = np.asarray(part.get(method, ()), dtype=float)
                if not numbers.size:
                    continue
                _box(axes, place, numbers, colours[method])
            axes.set_title(class_name, fontsize=9)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.set_xlabel(f"{unit.title} ({unit.unit})")
            axes.tick_params(labelleft=axes in grid[::COLUMNS])
        return _svg(figure, f"Box plots of {unit.title} over cases, for each class and method")


def curves_svg(curves: Mapping[str, Mapping[str, Sequence[LearningCurve]]], methods: Sequence[str]) -> str:
    """Draws learning curves by axis title and method: one colour per method of the study, one line per seed."""
    colours = method_colours(methods)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "curves"}):
        figure = new_figure(5.2 * len(curves), 3.2)
        for axes, (title, part) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
            for method, runs in part.items():
                line = LINES[list(colours).index(method) // len(COLOURS) % len(LINES)]
                for number, curve in enumerate(runs):
                    axes.plot(
                        curve.steps,
                        curve.values,
                        line,
                        marker="o" if len(curve.steps) < 3 else "",  # a single point draws no line
                        markersize=4,
                        color=colours[method],
                        alpha=0.8,
                        linewidth=1.3,
                        label=method if number == 0 else None,
                    )
            axes.set_xlabel("step")
            axes.set_title(title, fontsize=9)
            axes.legend(fontsize=8, frameon=False)
        return _svg(figure, f"Learning curves: {', '.join(curves)}; one line per seed")


def _box(axes: Axes, place: int, numbers: npt.NDArray[np.float64], colour: str) -> None:
    """Draws a horizontal box: quartiles, whiskers over all values, a thick median, and the points themselves."""
    line = {"color": INK, "linewidth": 0.9}
    axes.boxplot(
        numbers,
        positions=[place],
        widths=0.6,
        orientation="horizontal",
        whis=(0, 100),
        showcaps=False,
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        medianprops={"color": colour, "linewidth": 2.2},
    )
    # spread the points, always in the same way
    spread = np.random.default_rng(0).uniform(-0.18, 0.18, numbers.size)
    axes.plot(numbers, place + spread, ".", color=colour, alpha=0.7, markersize=5)


def _grid(count: int, height: float, shared: str) -> tuple[Figure, list[Axes]]:
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = new_figure(1.5 + 2.9 * columns, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=shared == "all").flat
    axes = list(grid)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _svg(figure: Figure, description: str) -> str:
    """Returns the figure as an SVG element, with the description for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label={quoteattr(description)}', 1)
