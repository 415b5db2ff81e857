"""The report: a single, self-contained HTML file. Its template is `assets/page.html`."""

import base64
import math
from collections.abc import Sequence
from dataclasses import astuple
from itertools import zip_longest
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps

from riskft.analysis.comparison import Comparison, ComparisonRow, headline
from riskft.analysis.curves import CURVES, LearningCurve, read_curve
from riskft.analysis.pairs import pair
from riskft.analysis.runs import FoundRuns, RunScores
from riskft.analysis.statistics import REPLICATES, case_means
from riskft.compare.figures import boxes_svg, curves_svg, forest_svg
from riskft.compare.panels import ShownPanel, choose_panels
from riskft.compare.tables import plain_table, result_table
from riskft.compare.volumes import MappedCase, class_names, mapped_cases, viewer_entry
from riskft.run.record import git_commit

UNPAIRED = ("study", "method", "baseline", "seed", "case", "class", "reason")


def report_html(found: FoundRuns, comparison: Comparison, viewer_cases: int) -> str:
    """Returns the whole page, with at most ``viewer_cases`` cases in the viewer."""
    inferno, classes = colormaps["inferno"], colormaps["tab10"]
    environment = Environment(
        loader=PackageLoader("riskft.compare", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        unit=comparison.unit,
        runs=len(found.runs),
        notes=found.notes,
        studies=[
            _study(study, found.runs, comparison) for study in dict.fromkeys(row.study for row in comparison.rows)
        ],
        untested=", ".join(map(str, found.untested)),
        unpaired=plain_table(UNPAIRED, [astuple(item) for item in comparison.unpaired], "What has no partner"),
        replicates=REPLICATES,
        commit=git_commit(),
        viewer={
            "cases": _viewer_cases(found.runs, comparison, viewer_cases),
            "colours": np.round(inferno(np.arange(256))[:, :3] * 255).astype(int).tolist(),
            "classColours": np.round(classes(np.arange(10))[:, :3] * 255).astype(int).tolist(),
        },
    )


def _study(study: str, runs: Sequence[RunScores], comparison: Comparison) -> dict[str, Any]:
    """Returns a study's section: tables, SVG figures, and panels with their PNG files in base 64."""
    unit = comparison.unit
    rows = [row for row in comparison.rows if row.study == study]
    means = headline(rows)
    classes = [row for row in rows if row not in means]
    methods = {row.method: [run for run in runs if (run.study, run.method) == (study, row.method)] for row in means}
    boxes = {
        name: {method: _case_values(members, name, comparison) for method, members in methods.items()}
        for name in dict.fromkeys(row.class_name for row in rows)
    }
    curves = _curves(methods)
    caption = f"{study}: {unit.title}, {means[0].class_name}, {unit.unit}; differences from the baseline"
    by_class = f"{study}: {unit.title} by class, {unit.unit}"
    return {
        "name": study,
        "means": result_table(means, unit, caption),
        "classes": result_table(classes, unit, by_class) if classes else None,
        "forest": forest_svg(rows, unit),
        "boxes": boxes_svg(boxes, unit),
        "curves": curves_svg(curves, list(methods)) if curves else None,
        "panels": _panels(means, methods, comparison),
    }


def _case_values(runs: Sequence[RunScores], class_name: str, comparison: Comparison) -> list[float]:
    """Returns all cases' means over seeds, in the metric's unit."""
    everything, _ = pair(runs, runs)
    values = next((part.other for part in everything if part.class_name == class_name), np.full((1, 1), np.nan))
    return [float(value) * comparison.unit.scale for value in case_means(values)]


def _curves(methods: dict[str, list[RunScores]]) -> dict[str, dict[str, list[LearningCurve]]]:
    result = {}
    for column, title in CURVES.items():
        read = {method: [read_curve(run.folder, column) for run in runs] for method, runs in methods.items()}
        kept = {method: [curve for curve in curves if curve.steps] for method, curves in read.items()}
        if kept := {method: curves for method, curves in kept.items() if curves}:
            result[title] = kept
    return result


def _panels(
    means: Sequence[ComparisonRow], methods: dict[str, list[RunScores]], comparison: Comparison
) -> list[tuple[ShownPanel, str]]:
    """Returns the panels of the best method that has some; the baseline comes last."""
    sign = -1 if comparison.unit.higher_is_better else 1
    paired = [row for row in means if not math.isnan(row.difference)]
    for row in sorted(paired, key=lambda row: sign * row.difference) + [row for row in means if row not in paired]:
        if chosen := choose_panels(methods[row.method], methods[row.baseline], comparison.unit):
            return [(panel, base64.b64encode(panel.path.read_bytes()).decode("ascii")) for panel in chosen]
    return []


def _viewer_cases(runs: Sequence[RunScores], comparison: Comparison, count: int) -> list[dict[str, Any]]:
    """Returns cases with maps, from each study in turn: of its first run that has maps, baselines last."""
    baselines = {(row.study, row.method) for row in comparison.rows if row.is_baseline}
    studies: dict[str, list[tuple[RunScores, MappedCase]]] = {}
    for run in sorted(runs, key=lambda run: (run.study, run.method) in baselines):
        if not studies.get(run.study):
            studies[run.study] = [(run, case) for case in mapped_cases(run.folder)]
    turns = [item for turn in zip_longest(*studies.values()) for item in turn if item is not None]
    return [
        viewer_entry(case, f"{run.study}, {run.method}: {case.subject} ({case.kind})", class_names(run.folder))
        for run, case in turns[:count]
    ]
