"""Few parses find the same folders and faults as one parse per run."""

from itertools import product

import pytest
import yaml

from riskft.errors import InputError
from riskft.run.folder import RunOptions
from riskft.sweep.few_parses import with_few_parses


class Parser:
    """A stand-in for ``fit``'s parser: last method and folder given, and a fault for each value that is 'bad'."""

    def __init__(self):
        self.calls = 0

    def __call__(self, run):
        self.calls += 1
        values = dict(argument.removeprefix("--").split("=", 1) for argument in run)
        for name, value in values.items():
            if value.startswith("bad"):
                raise InputError(f"{name} is {value}")
        if values.get("loss") == "dice" and "loss.init_args.focus" in values and values["loss.init_args.focus"] != "0":
            raise InputError("dice has no focus")
        return RunOptions(values.get("run.root", "runs"), "s", values.get("run.method", "m")), int(
            values.get("seed", 0)
        )


def runs_of(**values):
    names = [name.replace("__", ".") for name in values]
    return [
        tuple(f"--{name}={value}" for name, value in zip(names, chosen, strict=True))
        for chosen in product(*values.values())
    ]


def outcome(resolve, run):
    try:
        return resolve(run)
    except InputError as error:
        return str(error)


def parsed(runs):
    """The outcomes of all runs, which must be those of a parser that is asked for each, and the number of parses."""
    few = Parser()
    remembered = {}

    def once(run):  # as FitOptions does
        if run not in remembered:
            try:
                remembered[run] = few(run)
            except InputError as error:
                remembered[run] = error
        if isinstance(remembered[run], InputError):
            raise remembered[run]
        return remembered[run]

    resolve = with_few_parses(once, runs)
    found = [outcome(resolve, run) for run in runs]
    assert found == [outcome(Parser(), run) for run in runs]
    return found, few.calls


def test_independent_options_are_checked_one_value_at_a_time():
    found, calls = parsed(runs_of(run__method="abcde", size=range(10), lr=(1, 2), seed=(3, 4)))
    assert calls == 1 + 4 + 9 + 1 + 1
    assert [options.method for options, _ in found[::40]] == list("abcde")


def test_a_faulty_value_is_reported_for_each_of_its_runs():
    found, calls = parsed(runs_of(size=("bad", 1, 2), run__method="abcd", lr=(1, 2, "bad too")))
    assert [item for item in found if isinstance(item, str)] == ["size is bad"] * 12 + ["lr is bad too"] * 8
    assert calls < 12


def test_a_fault_of_all_runs_is_not_looked_for_in_each():
    _, calls = parsed(runs_of(constant=("bad",), size=range(10), run__method="abcdefghij"))
    assert calls == 10


def test_a_class_and_its_options_are_checked_together():
    found, calls = parsed(runs_of(loss=("ce", "dice"), loss__init_args__focus=(0, 1), size=range(4)))
    assert found.count("dice has no focus") == 4
    assert calls == 4 + 3


@pytest.mark.parametrize("second", ["loss.init_args.focus: 1", "size: ${loss.init_args.focus}", "loss: dice"])
def test_config_files_that_depend_on_each_other_are_checked_together(second, tmp_path):
    for name, text in (("a", "loss: ce"), ("b", "loss: {class_path: dice}"), ("c", "lr: 1"), ("d", second)):
        (tmp_path / f"{name}.yaml").write_text(text)
    runs = [
        (f"--config={tmp_path / first}.yaml", f"--config={tmp_path / other}.yaml") for first in "ab" for other in "cd"
    ]
    asked = []
    with_few_parses(lambda run: asked.append(run) or (RunOptions(), 0), runs)(runs[-1])
    assert runs[-1] in asked


def test_a_shared_value_that_refers_to_two_options_ties_them(tmp_path):
    (tmp_path / "base.yaml").write_text("run: {study: '${lr}', method: '${run.study}-${size}'}")
    shared = (f"--config={tmp_path}/base.yaml", "--network.width=${size}")
    runs = [(*shared, f"--lr={lr}", f"--size={size}", f"--seed={seed}") for lr, size, seed in product("ab", "cd", "ef")]

    def resolve(run):
        values = dict(argument.removeprefix("--").split("=", 1) for argument in run)
        return RunOptions("runs", "s", f"{values['lr']}-{values['size']}"), 0

    few = with_few_parses(resolve, runs)
    assert [few(run)[0].method for run in runs] == [resolve(run)[0].method for run in runs]


def test_rows_are_not_mixed():
    rows = [("--test=a", "--train=b"), ("--test=b", "--train=a")]
    runs = [(*row, f"--size={size}") for row in rows for size in range(3)]
    asked = []
    resolve = with_few_parses(lambda run: asked.append(run) or (RunOptions(), 0), runs)
    for run in runs:
        resolve(run)
    assert {run[:2] for run in asked} == set(rows)
    assert len(set(asked)) == 2 + 2


def test_a_source_that_describes_itself_sets_defaults_of_model_and_data():
    runs = runs_of(**{"model.source.checkpoint": ("a", "b"), "data.patch_size": (1, 2, 3), "run.method": "xyz"})
    asked = []
    resolve = with_few_parses(lambda run: asked.append(run) or (RunOptions(), 0), runs)
    for run in runs:
        resolve(run)
    assert len(set(asked)) == 6 + 2


def test_the_command_line_is_parsed_once_per_value(tmp_path, monkeypatch):
    from riskft.cli import main

    rows = {"parameters": {"config.tiny": {"value": "tests/cli/tiny.yaml"}, "run.root": {"value": str(tmp_path)},
                           "model.optimizer.init_args.lr": {"values": [0.1, "x", 0.2]},
                           "data.train_limit": {"values": [1, 2, 3]}}}  # fmt: skip
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(rows))
    from riskft.sweep.resolve import FitOptions

    parses = []
    parse = FitOptions._parsed
    monkeypatch.setattr(FitOptions, "_parsed", lambda self, line: parses.append(line) or parse(self, line))
    with pytest.raises(SystemExit):
        main(["sweep", str(tmp_path / "sweep.yaml")])
    assert len(parses) == 1 + 2 + 2
