"""Each run's folder and command line; what W&B's agent hands over gives the same run."""

import random
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from riskft.errors import InputError
from riskft.run_folder import RunOptions
from riskft.sweep.agent import given_values, take_wandb_id
from riskft.sweep.plan import fit_arguments, plan_run, plan_runs
from riskft.sweep.resolve import resolve
from riskft.sweep.spec import Parameter, Sweep, read_sweep

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))


def parameter(name, *values, varies=True):
    return Parameter(name, values, lambda _: values[0], varies)


def grid(*parameters):
    return Sweep("s", random=False, parameters=parameters, run_cap=None)


def by_method_file(arguments):
    """A stand-in for the command line: the method is the stem of the last config."""
    configs = [part.removeprefix("--config=") for part in arguments if part.startswith("--config=")]
    return RunOptions(study="study", method=Path(configs[-1]).stem), 0


def test_folders_show_what_varies():
    sweep = grid(
        parameter("config.model", "unet.yaml", varies=False),
        parameter("config.method", "riskft.yaml", "vanilla.yaml"),
        parameter("data.train_limit", 4, None),
        parameter("trainer.max_epochs", 7, varies=False),
        parameter("seed_everything", 0, 1),
    )
    runs = plan_runs(sweep, by_method_file)
    assert [run.folder for run in runs] == [
        f"runs/study/{method},train_limit={limit}/seed={seed}"
        for method in ("riskft", "vanilla")
        for limit in ("4", "null")
        for seed in (0, 1)
    ]
    assert runs[1].arguments == [
        "--config=unet.yaml",
        "--config=riskft.yaml",
        "--data.train_limit=4",
        "--trainer.max_epochs=7",
        "--seed_everything=1",
        "--run.method=riskft,train_limit=4",
    ]
    assert runs[1].values == {"config.method": "riskft.yaml", "data.train_limit": 4, "seed_everything": 1}


def test_a_single_value_in_a_list_is_named_so_that_a_second_does_not_rename_it():
    one, two = (
        plan_runs(
            grid(parameter("config", "m.yaml", varies=False), parameter("data.train_limit", *values)), by_method_file
        )
        for values in ((4,), (4, 8))
    )
    assert one[0] == two[0]
    assert "train_limit=4" in one[0].folder


def test_config_files_come_first_whatever_the_order():
    values = {"a": 1, "config.x": "x.yaml", "b": [1, "z"], "config": "y.yaml", "c": None, "d": True, "e": "null"}
    assert fit_arguments(values) == [
        *("--config=x.yaml", "--config=y.yaml"),
        *("--a=1", '--b=[1, "z"]', "--c=null", "--d=true", "--e=null"),
    ]


def test_parameters_with_the_same_last_part_keep_their_whole_names():
    sweep = grid(
        parameter("config", "m.yaml", varies=False), parameter("data.seed", 1, 2), parameter("model.seed", 3, 4)
    )
    assert plan_runs(sweep, by_method_file)[0].folder == "runs/study/m,data.seed=1,model.seed=3/seed=0"


def test_other_config_parameters_are_named_by_their_files():
    sweep = grid(parameter("config.transfer", "a/t1_t2.yaml", "a/t2_t1.yaml"), parameter("config.method", "m.yaml"))
    assert [run.folder for run in plan_runs(sweep, by_method_file)] == [
        "runs/study/m,transfer=t1_t2/seed=0",
        "runs/study/m,transfer=t2_t1/seed=0",
    ]


def test_runs_that_share_a_folder_are_all_named():
    sweep = grid(parameter("config", "a/m.yaml", "b/m.yaml"))
    with pytest.raises(InputError, match=r"share a folder") as raised:
        plan_runs(sweep, by_method_file)
    assert "a/m.yaml" in raised.value.problems[0]
    assert "b/m.yaml" in raised.value.problems[0]


def test_faults_of_many_runs_are_told_once_each():
    def refuse(arguments):
        if "--a=2" in arguments:
            raise InputError("a is 2")
        return RunOptions(), 0

    sweep = grid(parameter("a", 1, 2), parameter("seed_everything", 0, "x", 2))
    with pytest.raises(InputError) as raised:
        plan_runs(sweep, refuse)
    assert raised.value.problems == (
        "with a=1, seed_everything=x: seed_everything is 'x', expected a whole number",
        "with a=2, seed_everything=0 (and 2 more): a is 2",
    )


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_taken_by_the_command_line(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    sweep = read_sweep(path)
    for values in list(sweep.combinations())[:2]:
        run = plan_run(sweep, values, resolve)
        assert Path(run.folder).name == f"seed={values.get('seed_everything', 0)}"
        # and what it is started with gives that folder
        options, seed = resolve(tuple(run.arguments))
        assert str(options.path(seed)) == run.folder


def test_what_the_command_line_refuses_is_said(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    base = [parameter(f"config.{name}", f"configs/{name}.yaml") for name in ("model/unet", "data/fets2021")]
    sweep = grid(*base, parameter("data.batch_sise", 1), parameter("seed_everything", 0, 1))
    with pytest.raises(InputError) as raised:
        plan_runs(sweep, resolve)
    assert len(raised.value.problems) == 1
    assert "batch_sise" in raised.value.problems[0]


def test_the_agent_of_wandb_asks_for_the_same_runs(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    path = CONFIGS / "sweeps/fets2021.yaml"
    sweep = read_sweep(path)
    command = create_sweep_command(yaml.safe_load(path.read_text())["command"])
    assert command[:3] == ["riskft", "sweep", "agent"]
    assert (CONFIGS.parent / command[3]).samefile(path)
    for values in list(sweep.combinations())[:3]:
        # the agent's own order is not the file's
        names = random.Random(0).sample(list(values), len(values))
        asked = create_sweep_command_args({"args": {name: {"value": values[name]} for name in names}})["args"]
        given = given_values(sweep, asked)
        assert given == values
        assert list(given) == list(values)


def test_the_agent_s_values_are_python_s_and_nested_ones_come_together():
    sweep = grid(*(parameter(name, 0) for name in ("a.b", "a.c", "d", "e", "f")))
    arguments = ["--f={'x': 1}", "--a={'b': None, 'c': ['t1', 't2']}", "--d=True", "--e=plain=text"]
    assert given_values(sweep, arguments) == {
        "a.b": None, "a.c": ["t1", "t2"], "d": True, "e": "plain=text", "f": {"x": 1}
    }  # fmt: skip
    with pytest.raises(InputError) as raised:
        given_values(sweep, ["--a={'b': 1}", "--g=1", "stray"])
    assert len(raised.value.problems) == 1 + 1 + 4


def test_a_run_takes_the_agent_s_id_once(tmp_path):
    take_wandb_id(tmp_path, {})
    assert not (tmp_path / "wandb_id").exists()
    take_wandb_id(tmp_path, {"WANDB_RUN_ID": "first"})
    take_wandb_id(tmp_path, {"WANDB_RUN_ID": "second"})
    assert (tmp_path / "wandb_id").read_text() == "first"
