"""The report: one HTML file that needs nothing else."""

import json
import math
from collections.abc import Sequence
from dataclasses import astuple
from html import escape
from importlib.resources import files
from itertools import zip_longest
from string import Template
from typing import Any

import numpy as np
from matplotlib import colormaps

from riskft.analysis.comparison import Comparison, ComparisonRow, headline
from riskft.analysis.curves import CURVES, LearningCurve, read_curve
from riskft.analysis.pairs import pair
from riskft.analysis.runs import FoundRuns, RunScores
from riskft.analysis.statistics import REPLICATES, case_means
from riskft.compare.figures import boxes_svg, curves_svg, forest_svg
from riskft.compare.html import panel_figure, plain_table, result_table, svg_figure
from riskft.compare.panels import choose_panels
from riskft.compare.volumes import MappedCase, class_names, mapped_cases, viewer_entry
from riskft.run.commit import git_commit

NOTES = f"""<h2 id="notes">How to read it</h2>
<ul>
<li>Differences are method minus baseline, paired by seed, case and class. The mean of classes is that of a case's
classes with a value in both. Differences whose interval does not hold 0 are coloured.</li>
<li>Intervals: percentile bootstrap, {REPLICATES} replicates, fixed random numbers. Each draws seeds and cases with
replacement, the same cases for all seeds. With one seed the interval is over cases alone, and says nothing about
another training. With few seeds or cases bootstrap intervals are too narrow.</li>
<li>p: Wilcoxon's signed-rank test, two-sided, on the cases' means over seeds. Holm: corrected for the number of
methods in the study, for each class by itself.</li>
<li>Wins, losses and ties count cases, by their means over seeds.</li>
<li>A class that is in neither label nor prediction has no value. In one only: Dice 0, HD95 the volume's diagonal.</li>
</ul>"""

VIEWER = """<h2 id="maps">Risk maps</h2>
<section id="viewer" aria-label="Viewer of image, risk map and label">
<p class="note">Click or drag in a plane, turn the wheel, move the sliders, or focus a plane and use the arrow keys
(Page Up and Page Down for the slice). The subject's left is at the right; in the sagittal plane
anterior is at the right. Large volumes are made coarser to fit into this file.</p>
<div class="controls">
<label>Case <select data-part="case"></select></label>
<label>Map <select data-part="map"></select></label>
<label>Opacity <input data-part="opacity" type="range" min="0" max="100" value="60"></label>
<label><input data-part="border" type="checkbox" checked> Label's border</label>
</div>
<div class="planes">$planes</div>
<p data-part="readout" aria-live="polite"></p>
<div class="legend" data-part="legend" aria-label="Colours"></div>
</section>"""

PLANE = """<div class="plane">
<canvas data-part="$name" tabindex="0" role="application" width="10" height="10"
 aria-label="$name plane: image with risk map and label; arrow keys move the cross"></canvas>
<label>$name <input data-part="$name-slider" type="range" min="0" value="0" aria-label="$name slice">
<span data-part="$name-value"></span></label></div>"""


def report_html(found: FoundRuns, comparison: Comparison, viewer_cases: int) -> str:
    """Returns the whole page.

    Args:
        found: The runs.
        comparison: Their comparison.
        viewer_cases: How many cases the viewer holds at most.
    """
    studies = list(dict.fromkeys(row.study for row in comparison.rows))
    cases = _viewer_cases(found.runs, comparison, viewer_cases)
    title = f"{comparison.unit.title} of {len(found.runs)} runs: {', '.join(studies)}"
    sections = [_study(number, study, found.runs, comparison) for number, study in enumerate(studies)]
    contents = [(f"study-{number}", study) for number, study in enumerate(studies)]
    if cases:
        planes = "".join(Template(PLANE).substitute(name=name) for name in ("sagittal", "coronal", "axial"))
        sections.append(Template(VIEWER).substitute(planes=planes))
        contents.append(("maps", "Risk maps"))
    sections += [_left_out(found, comparison), NOTES]
    contents += [("left-out", "Left out"), ("notes", "How to read it")]
    inferno, classes = colormaps["inferno"], colormaps["tab10"]
    viewer = {
        "cases": cases,
        "colours": np.round(inferno(np.arange(256))[:, :3] * 255).astype(int).tolist(),
        "classColours": np.round(classes(np.arange(10))[:, :3] * 255).astype(int).tolist(),
    }
    return Template(_asset("page.html")).substitute(
        title=escape(title),
        lead=f"<p>{escape(_lead(comparison))}</p>" + "".join(f"<p>Note: {escape(note)}</p>" for note in found.notes),
        contents="".join(f'<a href="#{name}">{escape(text)}</a>' for name, text in contents),
        body="\n".join(sections),
        footer=f'<p class="note">Made by riskft compare, commit {escape(git_commit())}.</p>',
        style=_asset("page.css"),
        script=f"{_asset('tables.js')}\n{_asset('viewer.js')}",
        # a class called </script> must not end the data
        viewer_data=json.dumps(viewer).replace("<", "\\u003c"),
    )


def _asset(name: str) -> str:
    return (files("riskft.compare") / "assets" / name).read_text(encoding="utf-8")


def _lead(comparison: Comparison) -> str:
    better = "higher" if comparison.unit.higher_is_better else "lower"
    return f"{comparison.unit.title} in {comparison.unit.unit} ({better} is better) on the test cases."


def _study(number: int, study: str, runs: Sequence[RunScores], comparison: Comparison) -> str:
    unit = comparison.unit
    rows = [row for row in comparison.rows if row.study == study]
    means = headline(rows)
    classes = [row for row in rows if row not in means]
    methods = {row.method: [run for run in runs if (run.study, run.method) == (study, row.method)] for row in means}
    caption = f"{study}: {unit.title}, {means[0].class_name}, {unit.unit}; differences to the baseline"
    parts = [
        f'<h2 id="study-{number}">{escape(study)}</h2>',
        result_table(means, unit, caption),
        svg_figure(forest_svg(rows, unit), "Paired differences to the baseline, with 95 % intervals."),
    ]
    if classes:
        parts.append(result_table(classes, unit, f"{study}: {unit.title} by class, {unit.unit}"))
    boxes = {
        name: {method: _case_values(members, name, comparison) for method, members in methods.items()}
        for name in dict.fromkeys(row.class_name for row in rows)
    }
    parts.append(svg_figure(boxes_svg(boxes, unit), "A point a case, its mean over seeds. Box: quartiles and median; "
                            "whiskers: all values."))  # fmt: skip
    if curves := _curves(methods):
        parts.append(svg_figure(curves_svg(curves, list(methods)), "Learning curves, a line a seed."))
    parts += _panels(means, methods, comparison)
    return "\n".join(parts)


def _case_values(runs: Sequence[RunScores], class_name: str, comparison: Comparison) -> list[float]:
    """Returns the cases' means over seeds, all cases, in the metric's unit."""
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


def _panels(means: Sequence[ComparisonRow], methods: dict[str, list[RunScores]], comparison: Comparison) -> list[str]:
    """Returns the panels of the best method that has any, the baseline last."""
    sign = -1 if comparison.unit.higher_is_better else 1
    paired = [row for row in means if not math.isnan(row.difference)]
    for row in sorted(paired, key=lambda row: sign * row.difference) + [row for row in means if row not in paired]:
        if chosen := choose_panels(methods[row.method], methods[row.baseline], comparison.unit):
            return ["<h3>Risk heatmaps</h3>", *(panel_figure(panel) for panel in chosen)]
    return []


def _viewer_cases(runs: Sequence[RunScores], comparison: Comparison, count: int) -> list[dict[str, Any]]:
    """Returns cases with maps, of each study's first run that has any, the baselines' runs last; studies in turn."""
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


def _left_out(found: FoundRuns, comparison: Comparison) -> str:
    parts = ['<h2 id="left-out">Left out</h2>']
    if found.untested:
        text = ", ".join(str(folder) for folder in found.untested)
        parts.append(f"<p>Runs without cases.csv (not tested): {escape(text)}.</p>")
    if comparison.unpaired:
        headers = ("study", "method", "baseline", "seed", "case", "class", "reason")
        parts.append(plain_table(headers, [astuple(item) for item in comparison.unpaired], "What has no partner"))
    else:
        parts.append("<p>Every case, class and seed has its partner.</p>")
    return "\n".join(parts)
