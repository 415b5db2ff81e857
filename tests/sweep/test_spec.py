"""Sweep files: what they stand for, and what is said of wrong ones."""

import math
import random
from pathlib import Path

import pytest
import yaml

from riskft.errors import InputError
from riskft.sweep.parameters import from_entry
from riskft.sweep.spec import read_sweeps


def sweep(tmp_path, **content):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (found,) = read_sweeps(path)
    return found


def values(found):
    return [combination.values for combination in found.combinations()]


def test_a_grid_is_all_combinations_with_the_last_parameter_fastest(tmp_path):
    found = sweep(
        tmp_path,
        parameters={"a": {"values": [1, 2]}, "b": {"value": "x"}, "c": {"min": 3, "max": 5}},
    )
    assert found.name == "study"
    combinations = values(found)
    assert [(each["a"], each["c"]) for each in combinations] == [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)]
    assert {each["b"] for each in combinations} == {"x"}
    assert [parameter.varies for parameter in found.parameters] == [True, False, True]


def test_nested_parameters_get_dots(tmp_path):
    nested = {"data": {"parameters": {"train_limit": {"values": [4]}, "deep": {"parameters": {"er": {"value": 0}}}}}}
    assert values(sweep(tmp_path, parameters=nested)) == [{"data.train_limit": 4, "data.deep.er": 0}]


def test_random_draws_are_the_same_each_time_and_more_come_at_the_end(tmp_path):
    content = {"method": "random", "parameters": {"lr": {"min": 0.0, "max": 1.0}, "k": {"values": [1, 2, 3]}}}
    three = values(sweep(tmp_path, run_cap=3, **content))
    five = values(sweep(tmp_path, run_cap=5, **content))
    assert five[:3] == three
    assert len({each["lr"] for each in five}) == 5


def test_run_cap_cuts_a_grid(tmp_path):
    found = sweep(tmp_path, run_cap=2, parameters={"a": {"values": [1, 2, 3]}})
    assert values(found) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("entry", "low", "high", "centre"),
    [
        ({"min": 2, "max": 4}, 2, 4, 3),
        ({"min": 0.0, "max": 2.0}, 0, 2, 1),
        ({"distribution": "uniform", "min": 0, "max": 2}, 0, 2, 1),
        # the mean of exp(u), u uniform on (a, b), is (exp(b) - exp(a)) / (b - a)
        ({"distribution": "log_uniform", "min": 0, "max": 1}, 1, math.e, math.e - 1),
        ({"distribution": "log_uniform_values", "min": 1, "max": math.e}, 1, math.e, math.e - 1),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, 0, 1, 0.5),
        ({"distribution": "normal", "mu": 5, "sigma": 0.5}, 2, 8, 5),
        ({"values": [1, 5], "probabilities": [0.75, 0.25]}, 1, 5, 2),
    ],
)
def test_draws_have_the_range_and_mean_of_their_distribution(entry, low, high, centre):
    rng, draw = random.Random(0), from_entry(entry)
    drawn = [draw(rng) for _ in range(4000)]
    assert low <= min(drawn) <= max(drawn) <= high
    assert sum(drawn) / len(drawn) == pytest.approx(centre, abs=0.05 * (high - low))


def test_whole_limits_give_whole_numbers_and_steps_clean_ones():
    rng = random.Random(0)
    draw = from_entry({"min": 1, "max": 3})
    assert {draw(rng) for _ in range(100)} == {1, 2, 3}
    draw = from_entry({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1})
    assert {draw(rng) for _ in range(500)} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}
    draw = from_entry({"distribution": "q_uniform", "min": 0, "max": 8, "q": 4})
    assert {type(draw(rng)) for _ in range(10)} == {int}


def test_all_faults_of_a_file_are_in_one_report(tmp_path):
    with pytest.raises(InputError) as raised:
        sweep(
            tmp_path,
            methods="grid",
            method="bayes",
            run_cap=0,
            parameters={
                "a": 3,
                "b": {"valeus": [1]},
                "c": {"values": []},
                "d": {"values": [1, 1]},
                "e": {"distribution": "beta", "min": 0, "max": 1},
                "f": {"distribution": "uniform", "min": 3, "max": 1},
                "g": {"distribution": "uniform", "min": 3},
                "h": {"distribution": "log_uniform_values", "min": 0, "max": 1},
            },
        )
    problems = raised.value.problems
    assert len(problems) == 3 + 8
    for fault in ("'methods'", "bayes", "wandb agent", "run_cap", "valeus", "twice", "beta", "above max", "g: max"):
        assert any(fault in problem for problem in problems), fault


@pytest.mark.parametrize("entry", [{"min": 0.0, "max": 1.0}, {"distribution": "normal"}])
def test_a_grid_needs_values(tmp_path, entry):
    with pytest.raises(InputError, match="method: random"):
        sweep(tmp_path, parameters={"a": entry})


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "method: grid", "method: random\nparameters: {a: {value: 1}}"])
def test_unusable_files_are_named(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml"):
        read_sweeps(path)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="nowhere"):
        read_sweeps(Path("nowhere.yaml"))
