"""The study of the choice of a source: what a race costs and what a choice is worth, computed by hand."""

import importlib
import math
import sys
from pathlib import Path

import pytest

from riskft.rank.decision import Decision
from riskft.rank.race_result import Course, RaceResult
from riskft.rank.race_runs import Mark

FOLDER = Path(__file__).resolve().parents[2] / "experiments/choice_of_source"


@pytest.fixture
def rules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("rules")
    for name in ("rules", "conditions"):
        sys.modules.pop(name, None)


def test_who_drops_out_is_trained_no_further(rules):
    def course(name: str, *steps: int) -> Course:
        # pauses end an epoch: 1/8 and 1/4 of 300 steps are 50 and 100
        marks = {at: [Mark(at, step, 300, 1.0, {})] for at, step in zip((0.125, 0.25, 1.0), steps, strict=False)}
        return Course(name, Path(name), marks, "", 1.0, 0.0)

    courses = [course("a", 50, 100, 300), course("b", 50, 100), course("scratch", 50)]
    result = RaceResult(Decision("a", 3, 0.9, 1.0, None, None), [], courses, 0)
    assert rules.race_cost(result) == pytest.approx(1 + 1 / 3 + 1 / 6)


def test_a_run_s_dice_is_the_mean_over_cases_of_the_mean_over_classes(rules, tmp_path):
    rows = ["subject,class_name,dice,hd95_mm", "a,core,0.5,1", "a,oedema,0.7,1", "b,core,,", "b,oedema,0.8,1"]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    assert rules.test_dice(tmp_path) == pytest.approx(70)


def test_rules_are_averaged_over_conditions_and_seeds(rules):
    found = [
        rules.Choice(condition, seed, "leep", "x", 1.0, regret, 1.0, over_scratch, math.nan)
        for condition, seed, regret, over_scratch in [("p", 0, 0, 2), ("p", 1, 2, -1), ("q", 0, 4, 2), ("q", 1, 6, 2)]
    ]
    ((rule, cost, regret, over_mean, over_scratch, tau, below),) = rules.table(found)
    assert (rule, cost, tau, below) == ("leep", "1.00", "", "25 %")
    assert regret.startswith("3.00 (")
    assert over_mean == "1.00 (1.00 to 1.00)"
    assert over_scratch.startswith("1.25 (")
