"""Chooses the risk heatmap panels that a study's section shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from riskft.analysis.comparison import MetricUnit
from riskft.analysis.pairs import pair
from riskft.analysis.runs import RunScores
from riskft.analysis.statistics import case_means
from riskft.compare.volumes import mapped_cases, mean_hardness
from riskft.run.folder import RunFolder

KINDS = {"test": "test case", "val": "validation case", "train": "training case"}
SHOWN = 3


@dataclass(frozen=True)
class ShownPanel:
    """A panel's PNG file, with its caption."""

    path: Path
    caption: str


def choose_panels(runs: Sequence[RunScores], baseline: Sequence[RunScores], unit: MetricUnit) -> list[ShownPanel]:
    """Returns the panels of a method's best, median and worst case.

    The best case is that with the largest gain over the baseline, among the test cases with a panel (`riskft test`
    draws the best, the median and the worst by their own Dice). Without panels of test cases, those of validation and
    training cases are ranked by the mean hardness of their foreground, lowest first, because they have no score. Panels
    without a risk map cannot be ranked at all; the caption says so.
    """
    panels: dict[str, tuple[str, Path]] = {}
    for path in (path for run in runs for path in sorted(RunFolder(run.folder).heatmaps.glob("*.png"))):
        kind, _, name = path.stem.partition("_")
        if kind in KINDS:
            panels.setdefault(unquote(name), (KINDS[kind], path))
    every = _gains(runs, baseline, unit)
    if gains := {name: gain for name, gain in every.items() if name in panels}:
        return _ranked(panels, gains, unit.higher_is_better, runs[0].method,
                       f"difference from {baseline[0].method} {{:+.2f}} {unit.unit}",
                       "case" if len(gains) == len(every) else f"of {len(gains)} drawn")  # fmt: skip
    cases = {case.subject: case for run in reversed(runs) for case in mapped_cases(run.folder)}
    hardness = {name: mean_hardness(cases[name]) for name in panels if name in cases}
    if hardness:
        return _ranked(panels, hardness, False, runs[0].method, "mean hardness of the foreground {:.2f} nats")
    return [
        ShownPanel(path, f"{runs[0].method}, {kind} {name} (not ranked: it has neither a score nor a risk map)")
        for name, (kind, path) in list(panels.items())[:SHOWN]
    ]


def _gains(runs: Sequence[RunScores], baseline: Sequence[RunScores], unit: MetricUnit) -> dict[str, float]:
    """Returns the cases' mean differences from the baseline over classes and seeds."""
    mean, *_ = pair(baseline, runs)[0]
    paired = np.flatnonzero((~np.isnan(mean.differences)).any(0))
    subjects = [mean.subjects[index] for index in paired]
    return dict(zip(subjects, (case_means(mean.differences) * unit.scale).tolist(), strict=True))


def _ranked(
    panels: Mapping[str, tuple[str, Path]],
    values: Mapping[str, float],
    higher_is_better: bool,
    method: str,
    said: str,
    among: str = "case",
) -> list[ShownPanel]:
    """Returns the panels with the best, the median and the worst value, without repeating a case."""
    names = sorted(values, key=lambda name: (values[name], name), reverse=higher_is_better)
    places = {0: "best"} | ({len(names) - 1: "worst"} if len(names) > 1 else {})
    places = {len(names) // 2: "median"} | places  # two cases have no median
    return [
        ShownPanel(panels[names[at]][1], f"{method}, {place} {among}, {panels[names[at]][0]} {names[at]}: "
                   + said.format(values[names[at]]))
        for at, place in sorted(places.items())
    ]  # fmt: skip
