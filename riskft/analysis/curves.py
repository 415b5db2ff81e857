"""Learning curves from a run's ``metrics.csv`` and its earlier parts."""

import math
from dataclasses import dataclass
from pathlib import Path

from riskft.files import earlier, read_rows
from riskft.run.folder import RunFolder

#: The columns to draw, if the runs have them, and the axis titles.
CURVES = {"val/dice": "validation Dice", "train/loss": "training loss"}


@dataclass(frozen=True)
class LearningCurve:
    """A quantity by optimiser step, ascending."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


def read_curve(folder: Path, name: str) -> LearningCurve:
    """Reads a column from ``metrics.1.csv``, ``metrics.2.csv``, ... and ``metrics.csv``; empty if there is none.

    A resumed run has one part per start. Where parts overlap, the later one counts: it repeated those steps from the
    checkpoint.
    """
    points: dict[int, float] = {}
    metrics = RunFolder(folder).metrics
    for path in [*earlier(metrics), *([metrics] if metrics.is_file() else [])]:
        part = _read_part(path, name)
        if part:
            points = {step: value for step, value in points.items() if step < min(part)} | part
    steps = sorted(points)
    return LearningCurve(tuple(steps), tuple(points[step] for step in steps))


def _read_part(path: Path, name: str) -> dict[int, float]:
    """Returns a part's values by step, without half-written lines of a killed process."""
    rows = read_rows(path)
    points = {}
    for row in rows:
        try:
            value = float(row[name])
            step = int(row["step"])
        except (KeyError, TypeError, ValueError):
            continue  # this line holds another quantity
        if math.isfinite(value):
            points[step] = value
    return points
