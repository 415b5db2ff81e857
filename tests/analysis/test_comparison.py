"""Pairing, and rows of the table, by hand."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from riskft.analysis.comparison import compare
from riskft.analysis.output import cases_csv, table_csv, unpaired_csv
from riskft.analysis.pairs import MEAN, pair
from riskft.analysis.runs import RunScores
from riskft.errors import InputError

GAP = math.nan
NAMES = ("shell", "core")


def run(method, seed, scores, study="s"):
    return RunScores(Path(f"{study}/{method}/{seed}"), study, method, seed, scores)


def scores(**values):
    """Scores of shell and core by subject."""
    return {(subject, name): value for subject, pair in values.items() for name, value in zip(NAMES, pair, strict=True)}


def test_mean_of_classes_takes_classes_with_a_value_in_both():
    first = [run("vanilla", 0, scores(a=(0.6, 0.8), b=(0.5, GAP), c=(GAP, GAP)))]
    second = [run("riskft", 0, scores(a=(0.7, 0.6), b=(0.9, 0.1), c=(GAP, GAP)))]
    (mean, shell, core), missing = pair(first, second)
    assert [item.class_name for item in (mean, shell, core)] == [MEAN, "shell", "core"]
    assert mean.subjects == ("a", "b", "c")
    np.testing.assert_allclose(mean.baseline, [[0.7, 0.5, GAP]])
    np.testing.assert_allclose(mean.differences, [[-0.05, 0.4, GAP]])
    np.testing.assert_allclose(core.other, [[0.6, GAP, GAP]])
    assert [str(item).partition(": ")[2] for item in missing] == [
        "riskft against vanilla: seed 0, b, core: no value in vanilla",
        "riskft against vanilla: seed 0, c, shell: no value in either (the class is in neither label nor prediction)",
        "riskft against vanilla: seed 0, c, core: no value in either (the class is in neither label nor prediction)",
    ]


def test_cases_and_seeds_without_a_partner_are_named_and_do_not_count():
    one = {("a", "tumour"): 0.5, ("b", "tumour"): 0.6}
    first = [run("vanilla", 0, one), run("vanilla", 1, one), run("vanilla", 3, one)]
    second = [run("riskft", 0, {("b", "tumour"): 0.7, ("c", "tumour"): 0.1}), run("riskft", 2, one)]
    second.append(run("riskft", 3, {("a", "tumour"): 0.6, ("b", "tumour"): 0.6}))
    (tumour,), missing = pair(first, second)
    assert tumour.class_name == "tumour"
    assert tumour.seeds == (0, 3)
    np.testing.assert_allclose(tumour.differences, [[GAP, 0.1, GAP], [0.1, 0.0, GAP]])
    assert [(item.seed, item.subject, item.reason) for item in missing] == [
        (0, "a", "not in the cases of riskft"),
        (0, "c", "not in the cases of vanilla"),
        (1, "", "no run of riskft"),
        (2, "", "no run of vanilla"),
    ]
    comparison = compare([*first, *second], "dice", "vanilla")
    row = comparison.rows[1]
    assert (row.cases, row.seeds, row.wins, row.losses, row.ties) == (2, 2, 2, 0, 0)
    # the baseline's mean over the same three pairs
    assert (row.mean, row.baseline_mean) == pytest.approx((190 / 3, 170 / 3))
    assert comparison.unpaired == missing
    assert len(unpaired_csv(comparison).splitlines()) == 5


def fixed_study():
    """Two seeds, seven cases, two classes, three methods, and a pandas-free table of them."""
    rng = np.random.default_rng(3)
    base = rng.uniform(0.4, 0.8, (7, 2))
    runs, values = [], {}
    for method, gain in (("vanilla", 0.0), ("riskft", 0.03), ("scratch", -0.08)):
        for seed in (0, 1):
            values[method, seed] = np.round(base + gain + rng.normal(0, 0.02, base.shape), 4)
            cases = {f"c{i}": row for i, row in enumerate(values[method, seed])}
            runs.append(run(method, seed, scores(**cases)))
    return runs, values


def test_rows_agree_with_scipy_on_a_fixed_table():
    runs, values = fixed_study()
    comparison = compare(runs, "dice", "vanilla")
    assert [row.method for row in comparison.rows] == ["vanilla", "riskft", "scratch"] * 3
    assert [row.class_name for row in comparison.rows[::3]] == [MEAN, "shell", "core"]
    for at, column in ((0, slice(None)), (3, slice(0, 1)), (6, slice(1, 2))):
        baseline, *others = comparison.rows[at : at + 3]
        of = {key: value[:, column].mean(1) for key, value in values.items()}
        assert baseline.mean == pytest.approx(100 * np.mean([of["vanilla", 0], of["vanilla", 1]]))
        assert math.isnan(baseline.difference)
        p = {}
        for row in others:
            differences = np.array([of[row.method, seed] - of["vanilla", seed] for seed in (0, 1)])
            p[row.method] = stats.wilcoxon(differences.mean(0)).pvalue
            assert row.difference == pytest.approx(100 * differences.mean())
            assert row.p == pytest.approx(p[row.method])
            assert row.low < row.difference < row.high
            assert row.interval_over == "seeds and cases"
            assert (row.cases, row.seeds, row.wins + row.losses + row.ties) == (7, 2, 7)
            # the standard error of the mean over cases is a part of the interval's
            spread = 100 * stats.sem(differences.mean(0)) * np.sqrt(6 / 7)
            assert 2 * 1.96 * spread * 0.8 < row.high - row.low < 2 * 1.96 * spread * 2
        # Holm with two methods: the smaller twice, the larger no less
        small, large = sorted(p, key=p.__getitem__)
        adjusted = {row.method: row.p_holm for row in others}
        assert adjusted[small] == pytest.approx(min(1, 2 * p[small]))
        assert adjusted[large] == pytest.approx(min(1, max(2 * p[small], p[large])))


def test_csv_holds_all_rows_and_all_cases():
    runs, values = fixed_study()
    comparison = compare(runs, "dice", "vanilla")
    rows = list(csv.DictReader(io.StringIO(table_csv(comparison))))
    assert [float(row["difference"]) for row in rows] == pytest.approx(
        [row.difference for row in comparison.rows], nan_ok=True
    )
    assert {row["unit"] for row in rows} == {"Dice points"}
    cases = list(csv.DictReader(io.StringIO(cases_csv(runs, "dice"))))
    assert len(cases) == 6 * 7 * 2
    assert (cases[3]["subject"], cases[3]["class_name"]) == ("c1", "core")
    assert float(cases[3]["dice"]) == values["vanilla", 0][1, 1]


def test_lower_distance_is_a_win():
    first, second = (run(name, 0, scores(a=(d, d), b=(d, d))) for name, d in (("vanilla", 4.0), ("riskft", 3.0)))
    row = compare([first, second], "hd95_mm", "vanilla").rows[1]
    assert (row.difference, row.wins, row.losses, row.interval_over) == (-1, 2, 0, "cases alone")


def test_a_sweeps_methods_are_compared_at_equal_settings():
    one = scores(a=(0.5, 0.5))
    names = ["vanilla,train_limit=4", "riskft,train_limit=4", "vanilla", "riskft,train_limit=8"]
    rows = compare([run(name, 0, one) for name in names], "dice", "vanilla").rows
    assert {row.method: row.baseline for row in rows} == {
        "vanilla,train_limit=4": "vanilla,train_limit=4",
        "riskft,train_limit=4": "vanilla,train_limit=4",
        "vanilla": "vanilla",
        "riskft,train_limit=8": "vanilla",
    }


def test_studies_without_the_baseline_are_all_named():
    one = scores(a=(0.5, 0.5))
    runs = [run("riskft", 0, one, "s1"), run("riskft", 0, one, "s2"), run("scratch", 0, one, "s2")]
    with pytest.raises(InputError) as caught:
        compare([*runs, run("vanilla", 0, one, "s3")], "dice", "vanilla")
    assert caught.value.problems == (
        "study s1: no vanilla for riskft",
        "study s2: no vanilla for riskft, scratch",
    )
    with pytest.raises(InputError, match="All runs are of the method vanilla"):
        compare([run("vanilla", 0, one)], "dice", "vanilla")
