"""Draws the figure of ``why.py``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import KINDS

from riskft.plots.figure import new_figure, save_figure

Row = Mapping[str, Any]
COLOURS = {"none": "0.4", "source's map": "tab:orange", "fresh map": "tab:blue"}


def mean(rows: Sequence[Row], value: str, **where: Any) -> float:
    """Returns the mean over seeds of a value, of the rows whose columns have the given values."""
    return float(np.mean([row[value] for row in rows if all(row[key] == wanted for key, wanted in where.items())]))


def draw(found: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draws the results, one column per condition."""
    titles = list(dict.fromkeys(row["condition"] for row in found["wrong"]))
    figure = new_figure(3.1 * len(titles), 10)
    grid = figure.subplots(4, len(titles), sharex="row", sharey="row")
    steps = sorted({row["step"] for row in found["stale"]})
    for column, title in enumerate(titles):
        bars, share, push, stale = grid[:, column]
        wrong_rows = [row for row in found["wrong"] if (row["condition"], row["method"]) == (title, "riskft")]
        total = sum(row["wrong"] for row in wrong_rows)
        labels, parts = [], []
        for kind in KINDS:
            for place in ("at the border", "elsewhere"):
                chosen = [row for row in wrong_rows if (row["kind"], row["place"]) == (kind, place)]
                labels.append(f"{kind}, {place}")
                parts.append([100 * sum(row[name] for row in chosen) / total for name in ("wrong", "mended", "new")])
        for offset, (name, colour) in enumerate((("wrong", "0.7"), ("mended", "tab:green"), ("new", "tab:red"))):
            bars.barh([at + 0.27 * offset for at in range(len(labels))], [part[offset] for part in parts], 0.27,
                      color=colour, label=name)  # fmt: skip
        bars.set_yticks([at + 0.27 for at in range(len(labels))], labels, fontsize=7)
        bars.set_title(title, fontsize=9)
        bars.set_xlabel("% of the plain network's errors", fontsize=8)
        own = [row for row in found["gradient"] if row["condition"] == title]
        for name, colour in COLOURS.items():
            inside = [100 * mean(own, "right", weight=name, step=step) for step in steps]
            share.plot(steps, inside, color=colour, label=name)
        share.set_xlabel("step", fontsize=8)
        for name, colour in COLOURS.items():
            values = [100 * mean(own, "towards_background", weight=name, step=step) for step in steps]
            push.plot(steps, values, color=colour)
        push.axhline(0, color="0.8", linewidth=0.8)
        push.set_xlabel("step", fontsize=8)
        for cases, colour in (("train", "tab:purple"), ("test", "tab:cyan")):
            rows = [row for row in found["stale"] if row["condition"] == title and row["cases"] == cases]
            stale.plot(steps, [mean(rows, "correlation", step=step) for step in steps], color=colour, label=cases)
        stale.set_xlabel("step", fontsize=8)
    grid[0, 0].invert_yaxis()
    grid[0, 0].legend(fontsize=7)
    grid[1, 0].set_ylabel("% of the CE gradient on voxels\nthat are right and touch no border", fontsize=8)
    grid[1, 0].legend(title="weight", fontsize=7, title_fontsize=7)
    grid[2, 0].set_ylabel("net push towards background,\n% of the CE gradient", fontsize=8)
    grid[3, 0].set_ylabel("rank correlation of the source's\nhardness and the network's, in class", fontsize=8)
    grid[3, 0].legend(title="cases", fontsize=7, title_fontsize=7)
    save_figure(figure, path)
