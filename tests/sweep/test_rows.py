"""Rows of a sweep file, which tie options that change together, and files that hold several sweeps."""

import pytest
import yaml

from riskft.errors import InputError
from riskft.sweep.spec import read_sweeps

FOLDS = [{"name": 1, "val": ["a"], "train": ["b", "c"]}, {"name": 2, "val": ["b"], "train": ["a", "c"]}]
METHODS = [{"config.method": "v.yaml", "lr": 0.1}, {"config.method": "s.yaml", "lr": 0.3}]


def read(tmp_path, content):
    path = tmp_path / "study.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return read_sweeps(path)


def problems(tmp_path, **content):
    with pytest.raises(InputError) as raised:
        read(tmp_path, {"parameters": {"p": {"value": 1}}, **content})
    return list(raised.value.problems)


def test_groups_are_combined_with_each_other_and_with_the_parameters(tmp_path):
    content = {"parameters": {"seed": {"values": [0, 1]}}, "rows": {"fold": FOLDS, "method": METHODS}}
    (sweep,) = read(tmp_path, content)
    found = list(sweep.combinations())
    assert [(each.rows, each.values["lr"], each.values["seed"]) for each in found] == [
        ({"fold": fold}, rate, seed) for fold in ("1", "2") for rate in (0.1, 0.3) for seed in (0, 1)
    ]
    # what a row ties never comes apart, and parameters come first
    assert list(found[2].values.items()) == [
        *(("seed", 0), ("val", ["a"]), ("train", ["b", "c"]), ("config.method", "s.yaml"), ("lr", 0.3))
    ]


def test_a_row_s_name_can_be_used_in_any_value(tmp_path):
    fold = [{"name": 1, "where": ["${rows.fold}", {"deep": "x/${rows.fold}/${rows.task}/${data.size}"}]}]
    content = {"parameters": {"source": {"value": "task=${rows.task},fold=${rows.fold}/best.ckpt"}}}
    (sweep,) = read(tmp_path, {**content, "rows": {"task": [{"name": "core", "t": 0}], "fold": fold}})
    (found,) = sweep.combinations()
    assert found.values == {
        "source": "task=core,fold=1/best.ckpt", "t": 0, "where": ["1", {"deep": "x/1/core/${data.size}"}]
    }  # fmt: skip


def test_rows_need_no_parameters(tmp_path):
    (sweep,) = read(tmp_path, {"rows": {"method": METHODS}})
    assert [each.values for each in sweep.combinations()] == METHODS


def test_random_draws_take_whole_rows(tmp_path):
    content = {"method": "random", "run_cap": 30, "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    (with_rows,) = read(tmp_path, {**content, "rows": {"fold": FOLDS}})
    drawn = [{key: each.values[key] for key in ("val", "train")} for each in with_rows.combinations()]
    assert all(drawn.count({"val": row["val"], "train": row["train"]}) > 5 for row in FOLDS)


def test_all_faults_of_rows_are_in_one_report(tmp_path):
    found = problems(
        tmp_path,
        rows={
            "a": [{"x": 1, "y": 2}, {"x": 1}, {"x": 2, "y": 3, "z": 4}],
            "b": [{"name": 1, "u": 1}, {"u": 2}],
            "c": [{"v": 1}, {"v": 1}, {"v": {"values": [1, 2]}}, {"v": 3, "name": ["n"]}],
            "d": [],
            "e": [{"name": "only"}],
            "f-g": [{"w": 1}],
        },
    )
    assert found == [
        "rows.a, row 2: lacks y, which row 1 sets",
        "rows.a, row 3: sets z, which row 1 does not",
        "rows.b, row 2: lacks name, which row 1 sets",
        "rows.c, row 2: is there twice",
        "rows.c, row 3: v is {'values': [1, 2]}, expected the value itself; lists of values belong in parameters",
        "rows.c, row 4: sets name, which row 1 does not",
        "rows.c, row 4: name is ['n'], expected text or a number",
        "rows.d is [], expected a list of at least one row",
        "rows.e holds {'name': 'only'}, expected a mapping such as {option: value}",
        "rows.f-g: expected a group's name of letters, digits and _",
    ]


@pytest.mark.parametrize("rows", [[], {}, [{"x": 1}], "x"])
def test_rows_without_groups(tmp_path, rows):
    (fault,) = problems(tmp_path, rows=rows)
    assert fault.startswith(f"rows is {rows!r}, expected groups such as")


def test_an_option_in_two_places_and_names_that_are_not_there(tmp_path):
    found = problems(
        tmp_path,
        rows={"a": [{"p": "${rows.b}/${rows.c}"}], "b": [{"name": 1, "q": 1, "r": 1}], "c": [{"q": 2}]},
        parameters={"p": {"value": "${rows.nowhere}"}, "s": {"values": ["${rows.b}", "${rows.c}"]}},
    )
    assert found == [
        "p is in parameters and in rows.a: leave it in one",
        "q is in rows.b and in rows.c: leave it in one",
        "p: ${rows.nowhere} stands for nothing; the groups with names are b",
        "s: ${rows.c} stands for nothing; the groups with names are b",
        "rows.a, row 1: p: ${rows.c} stands for nothing; the groups with names are b",
    ]


def test_a_file_of_several_sweeps_can_share_rows(tmp_path):
    first, second = read(
        tmp_path,
        """
sweeps:
  - name: source
    parameters: {seed: {value: 0}}
    rows: {fold: &folds [&one {name: 1, val: a}, {name: 2, val: b}]}
  - name: study
    rows: {fold: [*one]}
""",
    )
    assert (first.name, second.name) == ("source", "study")
    assert [each.rows["fold"] for each in first.combinations()] == ["1", "2"]
    assert [each.values for each in second.combinations()] == [{"val": "a"}]


def test_faults_of_several_sweeps_say_whose_they_are(tmp_path):
    with pytest.raises(InputError) as raised:
        read(tmp_path, {"name": "x", "sweeps": [{"name": "a", "rows": {}}, 3, {"parameters": {"p": {"value": 1}}}]})
    assert raised.value.problems == (
        "unknown key 'name' beside sweeps",
        "sweep 1 (a): rows is {}, expected groups such as `rows: {fold: [{name: 1, option: value}, ...]}`",
        "sweep 2 (study): holds int, expected keys such as parameters",
        "2 sweeps are called study: rename all but one",
    )
    with pytest.raises(InputError, match="sweeps is 3, expected a list of sweeps"):
        read(tmp_path, {"sweeps": 3})
