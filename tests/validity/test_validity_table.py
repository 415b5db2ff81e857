"""Means, intervals and counts over cases and seeds."""

import csv
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from riskft.analysis.statistics import bootstrap_interval
from riskft.validity.pairs import RunName
from riskft.validity.report import notes, roc_figure, shown, target_table
from riskft.validity.scores import RATES, ClassVolumes, PredictorScore
from riskft.validity.table import RunResult, case_scores_csv, table, validity_csv, volumes_csv

NAN = math.nan
KEY = ("negative transfer", "hardness")
OTHER = ("negative transfer", "relative to prior")


def result(seed, aurocs, pooled):
    cases = {
        f"case {number}": {
            KEY: PredictorScore(value, value / 2, 0.0 if math.isnan(value) else 0.1 * (number + 1), 100),
            OTHER: PredictorScore(value, value / 4, 0.1, 100),
        }
        for number, value in enumerate(aurocs)
    }
    volumes = {name: [ClassVolumes("background", *[1.0] * 7), ClassVolumes("core", 8, 2, 4, 3, 1, 1, 3)]
               for name in cases}  # fmt: skip
    scores = {KEY: PredictorScore(pooled, pooled / 2, 0.05, 300), OTHER: PredictorScore(pooled, pooled / 4, 0.05, 300)}
    curves = {"hardness": RATES**0.5, "relative to prior": np.full(len(RATES), np.nan)}
    return RunResult(RunName(Path("r"), "study", "vanilla", seed), cases, scores, curves, volumes)


def test_a_case_without_score_is_left_out_and_counted():
    first, second = table([result(3, [0.6, NAN, 0.9], 0.7)])
    assert (first.run, first.seed, first.predictor, second.predictor) == (
        "study/vanilla", "3", "hardness", "relative to prior"
    )  # fmt: skip
    assert first.auroc == pytest.approx(0.75)
    assert (first.low, first.high) == bootstrap_interval(np.array([[0.6, NAN, 0.9]]))
    assert (first.ap, second.ap) == (pytest.approx(0.375), pytest.approx(0.1875))
    assert first.prevalence == pytest.approx((0.1 + 0.3) / 2)
    assert (first.pooled_auroc, first.pooled_ap, first.pooled_prevalence) == (0.7, 0.35, 0.05)
    assert (first.cases, first.unscored, first.interval_over) == (2, 1, "cases alone")


def test_over_seeds_the_bootstrap_is_over_seeds_and_cases():
    rows = table([result(0, [0.6, NAN, 0.9], 0.7), result(1, [0.5, 0.7, 0.8], 0.8)])
    assert [row.seed for row in rows] == ["0", "0", "1", "1", "all", "all"]
    both = rows[4]
    assert both.auroc == pytest.approx((0.6 + 0.9 + 0.5 + 0.7 + 0.8) / 5)
    assert (both.low, both.high) == bootstrap_interval(np.array([[0.6, NAN, 0.9], [0.5, 0.7, 0.8]]))
    assert both.pooled_auroc == pytest.approx(0.75)
    assert (both.cases, both.unscored, both.interval_over) == (3, 1, "seeds and cases")
    assert shown(rows) == rows[4:]


def test_terminal_is_narrow_and_tells_what_is_left_out():
    results = [result(0, [0.6, NAN, 0.9], 0.7)]
    rows = table(results)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(target_table(rows))
    printed = console.export_text()
    assert "study/vanilla, seed 0: negative transfer, 20 % of the voxels, pooled 5 %" in printed
    assert re.search(r"hardness +0.750 +0.600-0.900 +0.700 +0.375 +0.300-0.450 +0.350", printed)
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    lines = notes(rows, results)
    assert any("negative transfer: 1 of 3 cases have no score" in line for line in lines)
    assert any("no 'rank in class'" in line for line in lines)
    # the core's alone: background has as much of both
    assert any("1 ml of negative transfer" in line and line.endswith("3 ml of positive transfer") for line in lines)


def test_csv_files_hold_everything():
    results = [result(0, [0.6, NAN], 0.7), result(1, [0.5, 0.7], 0.8)]
    rows = list(csv.DictReader(io.StringIO(validity_csv(table(results)))))
    assert len(rows) == 6
    assert rows[-1]["seed"] == "all"
    cases = list(csv.DictReader(io.StringIO(case_scores_csv(results))))
    assert len(cases) == 2 * 2 * 2
    assert (cases[2]["subject"], cases[2]["auroc"], cases[2]["voxels"]) == ("case 1", "nan", "100")
    volumes = list(csv.DictReader(io.StringIO(volumes_csv(results))))
    assert [row["class_name"] for row in volumes] == ["background", "core"] * 4
    assert float(volumes[1]["positive_transfer_ml"]) == 3


def test_figure_has_a_curve_for_each_predictor_that_has_one():
    figure = roc_figure([result(0, [0.6], 0.7), result(1, [0.5], 0.8)])
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["hardness 0.75"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), RATES**0.5)
