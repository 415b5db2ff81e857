"""Which of a study's risk heatmap panels are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from riskft.compare.pairs import pair
from riskft.compare.runs import RunScores
from riskft.compare.statistics import case_means
from riskft.compare.table import Unit

KINDS = {"test": "test case", "val": "validation case", "train": "training case"}
SHOWN = 3


@dataclass(frozen=True)
class ShownPanel:
    """A panel and what is said of it.

    Attributes:
        path: The PNG file.
        caption: What it shows.
    """

    path: Path
    caption: str


def choose_panels(runs: Sequence[RunScores], baseline: Sequence[RunScores], unit: Unit) -> list[ShownPanel]:
    """Returns the panels of the cases where a method gains most, in the middle, and least against the baseline.

    Panels of cases that no test has scored cannot be ranked: then it is the first ones, and the caption says so.

    Args:
        runs: A method's runs.
        baseline: Its baseline's.
        unit: The metric's.
    """
    files = [path for run in runs for path in sorted((run.folder / "heatmaps").glob("*.png"))]
    panels = {}
    for path in files:
        kind, _, name = path.stem.partition("_")
        if kind in KINDS:
            panels.setdefault((kind, unquote(name)), path)
    mean, *_ = pair(baseline, runs)[0]
    present = ~np.isnan(mean.differences).all(0)
    subjects = [name for name, there in zip(mean.subjects, present, strict=True) if there]
    gains = dict(zip(subjects, case_means(mean.differences) * unit.scale, strict=True))
    scored = {subject: path for (_, subject), path in panels.items() if subject in gains}
    method = runs[0].method
    if scored:
        ranked = sorted(scored, key=lambda name: gains[name], reverse=unit.higher_is_better)
        places = {0: "best", len(ranked) // 2: "median", len(ranked) - 1: "worst"}
        return [
            ShownPanel(scored[ranked[at]], f"{method}, {name} case: {ranked[at]}, difference to "
                       f"{baseline[0].method} {gains[ranked[at]]:+.2f} {unit.unit}")
            for at, name in sorted(places.items())
        ]  # fmt: skip
    ordered = sorted(panels, key=lambda item: (list(KINDS).index(item[0]), item[1]))[:SHOWN]
    reason = "not ranked: there is no panel of a test case"
    return [ShownPanel(panels[kind, name], f"{method}, {KINDS[kind]} {name} ({reason})") for kind, name in ordered]
