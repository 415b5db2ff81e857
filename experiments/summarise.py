"""Writes the results of a study: all cases as CSV, the paired comparisons as a table, and a forest plot.

    python experiments/summarise.py STUDY [--baseline vanilla] [--also scratch random_head] [--runs runs/evidence]

Reads the tested runs of the study and writes ``experiments/STUDY/results/{cases,table}.csv`` and ``forest.png``.
Without runs, it recomputes the table and the figure from the committed ``cases.csv``.

A study may have several conditions (pairs of contrasts, numbers of cases). A condition is the end of the study's name,
``STUDY_<condition>``, and what follows the method in a run's name, ``vanilla,cases=4``. ``STUDY_scratch`` belongs to
all. Each condition has its rows. For the rows of ``all``, a subject's values are first averaged over the conditions, so
that each subject counts once.
"""

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from riskft.analysis.comparison import ComparisonRow, compare, headline
from riskft.analysis.pairs import MEAN
from riskft.analysis.runs import RunScores, find_runs
from riskft.compare.figures import method_colours
from riskft.files import csv_text, read_rows, write_text
from riskft.plots.figure import new_figure, save_figure

ROOT = Path(__file__).resolve().parent
ALL = "all"
COLUMNS = ("condition", "method", "seed", "subject", "class_name", "dice")
#: Parts of a run's name that are settings of the method, or choose test cases, and are not conditions of the study.
SETTINGS = ("lr", "fold")
SHARED = "scratch"


def named(run: RunScores, study: str) -> RunScores:
    """Returns the run with its condition as the study, and only the method as the method."""
    method, *parts = run.method.split(",")
    where = [run.study.removeprefix(study).strip("_")] + [
        part for part in parts if part.partition("=")[0] not in SETTINGS
    ]
    return RunScores(run.folder, " ".join(part for part in where if part) or ALL, method, run.seed, run.scores)


def read_runs(study: str, folder: Path) -> list[RunScores]:
    """Reads the tested runs of a study and its conditions, without source networks."""
    folders = [path for path in sorted(folder.glob(f"{study}*")) if path.is_dir()]
    found = find_runs(folders, "dice").runs if folders else []
    runs = [named(run, study) for run in found]
    return merged(shared([run for run in runs if run.method != "source"]))


def merged(runs: Sequence[RunScores]) -> list[RunScores]:
    """Returns one run for all folds of a cross-validation, which have different test cases."""
    result: dict[tuple[str, str, int], RunScores] = {}
    for run in runs:
        key = (run.study, run.method, run.seed)
        before = result.get(key)
        if before is not None and before.scores.keys() & run.scores.keys():
            raise SystemExit(f"{before.folder} and {run.folder} have the same test cases.")
        scores = run.scores if before is None else before.scores | run.scores
        result[key] = RunScores(run.folder, *key, scores)
    return list(result.values())


def shared(runs: Sequence[RunScores]) -> list[RunScores]:
    """Adds the runs of ``STUDY_scratch``, which have no source, to all conditions with their settings."""
    conditions = {run.study for run in runs if not run.study.startswith(SHARED)}
    result = []
    for run in runs:
        settings = run.study.removeprefix(SHARED).strip()
        fitting = [name for name in sorted(conditions) if run.study.startswith(SHARED) and name.endswith(settings)]
        result += [RunScores(run.folder, name, run.method, run.seed, run.scores) for name in fitting or [run.study]]
    return result


def to_csv(runs: Sequence[RunScores]) -> str:
    """Returns all values, Dice from 0 to 1 with 5 decimals."""
    ordered = sorted(runs, key=lambda run: (run.study, run.method, run.seed))
    return csv_text(
        COLUMNS,
        [
            [run.study, run.method, run.seed, *case, f"{value:.5f}"]
            for run in ordered
            for case, value in run.scores.items()
        ],
    )


def from_csv(path: Path) -> list[RunScores]:
    """Reads what ``to_csv`` wrote."""
    scores: dict[tuple[str, str, int], dict[tuple[str, str], float]] = defaultdict(dict)
    for row in read_rows(path):
        key = (row["condition"], row["method"], int(row["seed"]))
        scores[key][row["subject"], row["class_name"]] = float(row["dice"])
    return [RunScores(path, *key, values) for key, values in scores.items()]


def pooled(runs: Sequence[RunScores]) -> list[RunScores]:
    """Returns one run per method and seed, with each subject's mean over classes and conditions.

    Only methods that were run under all conditions are pooled, on the seeds that all conditions have.
    """
    conditions = {run.study for run in runs}
    groups: dict[tuple[str, int], list[RunScores]] = defaultdict(list)
    for run in runs:
        groups[run.method, run.seed].append(run)
    result = []
    for (method, seed), members in groups.items():
        if {run.study for run in members} != conditions:
            continue
        values: dict[str, list[float]] = defaultdict(list)
        for run in members:
            cases: dict[str, list[float]] = defaultdict(list)
            for (subject, _), value in run.scores.items():
                if not math.isnan(value):
                    cases[subject].append(value)
            for subject, own in cases.items():
                values[subject].append(float(np.mean(own)))
        scores = {(subject, MEAN): float(np.mean(own)) for subject, own in values.items()}
        result.append(RunScores(Path(), ALL, method, seed, scores))
    return result


def rows_against(runs: Sequence[RunScores], baseline: str) -> list[ComparisonRow]:
    """Returns the comparison with a baseline in each condition that has it, of the mean over classes."""
    have = {run.study for run in runs if run.method == baseline}
    have &= {run.study for run in runs if run.method != baseline}
    rows = compare([run for run in runs if run.study in have], "dice", baseline).rows if have else []
    return [row for study in sorted(have, key=natural) for row in headline([row for row in rows if row.study == study])]


def natural(name: str) -> list[str | int]:
    """Returns a key that sorts ``cases=8`` before ``cases=20``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def table_csv(rows: Sequence[ComparisonRow]) -> str:
    """Returns the rows with two decimals (p values with four)."""
    names = [field.name for field in fields(ComparisonRow)]
    shown = [[_shown(name, value) for name, value in zip(names, astuple(row), strict=True)] for row in rows]
    return csv_text(["condition", *names[1:]], shown)


def _shown(name: str, value: object) -> object:
    if not isinstance(value, float):
        return value
    return f"{value:.4g}" if name.startswith("p") else f"{value:.2f}"


def draw(rows: Sequence[ComparisonRow], path: Path, title: str) -> None:
    """Draws the paired differences with their intervals, one panel per condition."""
    compared = [row for row in rows if not row.is_baseline]
    conditions = list(dict.fromkeys(row.study for row in compared))
    methods = list(dict.fromkeys(row.method for row in compared))
    colours = method_colours([row.method for row in rows])
    columns = min(4, len(conditions))
    lines = math.ceil(len(conditions) / columns)
    figure = new_figure(1.6 + 2.6 * columns, lines * (0.9 + 0.26 * len(methods)))
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(conditions) :]:
        axes.set_visible(False)
    for axes, condition in zip(grid.flat, conditions, strict=False):
        axes.axvline(0, color="0.6", linewidth=0.8)
        for row in compared:
            if row.study == condition:
                place = methods.index(row.method)
                axes.plot([row.low, row.high], [place, place], color=colours[row.method], linewidth=2)
                axes.plot(row.difference, place, "o", color=colours[row.method], markersize=5)
        axes.set_title(condition, fontsize=9)
        axes.set_yticks(range(len(methods)), methods)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.tick_params(labelbottom=True)
    baselines = sorted({row.baseline for row in compared})
    figure.suptitle(f"{title}: Dice points against {', '.join(baselines)}, 95 % intervals", fontsize=9)
    save_figure(figure, path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the results of a study.")
    parser.add_argument("study", help="a folder of experiments/")
    parser.add_argument("--baseline", default="vanilla", help="the method that the figure and the table compare with")
    parser.add_argument("--also", nargs="*", default=["scratch", "random_head"], help="further baselines of the table")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where the runs are")
    options = parser.parse_args(arguments)
    results = ROOT / options.study / "results"
    runs = read_runs(options.study, options.runs)
    if runs:
        write_text(results / "cases.csv", to_csv(runs))
    runs = from_csv(results / "cases.csv")
    if len({run.study for run in runs}) > 1:
        runs = [*pooled(runs), *runs]
    rows = rows_against(runs, options.baseline)
    others = [row for other in options.also for row in rows_against(runs, other)]
    write_text(results / "table.csv", table_csv([*rows, *others]))
    draw(rows, results / "forest.png", options.study)
    for row in rows:
        print(
            f"{row.study:24s} {row.method:18s} {row.mean:6.2f} {row.difference:+6.2f} "
            f"[{row.low:+.2f}, {row.high:+.2f}] p {row.p_holm:.3g} n {row.cases} x {row.seeds}"
        )


if __name__ == "__main__":
    main()
