"""The study of what to label next: random choices are nested, and the comparison is computed by hand."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "experiments/label_next/run.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("label_next_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_more_random_cases_add_to_fewer(study):
    pool = [f"case{number}" for number in range(20)]
    found = study.random_choices(pool, seed=3, draws=2, budgets=[1, 4])
    assert list(found) == ["random0-k1", "random0-k4", "random1-k1", "random1-k4"]
    for draw in (0, 1):
        assert len(set(found[f"random{draw}-k4"])) == 4
        assert found[f"random{draw}-k4"][:1] == found[f"random{draw}-k1"]
    assert found == study.random_choices(pool, seed=3, draws=2, budgets=[1, 4])
    assert found != study.random_choices(pool, seed=4, draws=2, budgets=[1, 4])


def test_a_choice_is_compared_with_the_mean_random_choice_of_its_seed(study):
    found = {
        (0, "random0-k1"): {"a": 60, "b": 70},
        (0, "random1-k1"): {"a": 70, "b": 80},
        (0, "random0-k2"): {"a": 99, "b": 99},
        (0, "typical-k1"): {"a": 71, "b": 73},
        (1, "random0-k1"): {"a": 50, "b": 60},
        (1, "random1-k1"): {"a": 52, "b": 62},
        (1, "typical-k1"): {"a": 58, "b": 66},
    }
    (row,) = study.comparison(found)
    budget, way, seeds, dice, random, difference, low, high, spread, better = row
    assert (budget, way, seeds) == ("1", "typical", 2)
    # seed 0: 72 against (65 + 75) / 2; seed 1: 62 against (55 + 57) / 2
    assert (dice, random, difference) == ("67.00", "63.00", "4.00")
    assert float(low) < 4 < float(high)
    # variances of 65, 75 and of 55, 57: 50 and 2
    assert spread == "5.10"
    assert better == "0.75"  # better than 65, not than 75; better than both
