"""Each run's folder and command line; what W&B's agent hands over gives the same run."""

import random
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from riskft.errors import InputError
from riskft.run.folder import RunOptions
from riskft.sweep.parameters import Parameter
from riskft.sweep.plan import fit_arguments, plan_run, plan_runs
from riskft.sweep.resolve import FitOptions
from riskft.sweep.rows import RowGroup, TiedValues
from riskft.sweep.runner import given_values, read_for_wandb, take_wandb_id
from riskft.sweep.spec import Sweep, read_sweeps

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))


def parameter(name, *values, varies=True):
    return Parameter(name, values, lambda _: values[0], varies)


def grid(*parameters, groups=()):
    return Sweep("s", random=False, parameters=parameters, groups=groups)


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


def test_named_rows_come_first_in_a_run_s_name_and_unnamed_ones_are_not_shown():
    folds = (TiedValues("1", {"data.val": ["a"]}), TiedValues("2", {"data.val": ["b"]}))
    methods = (TiedValues(None, {"config": "m.yaml", "lr": 0.1}), TiedValues(None, {"config": "n.yaml", "lr": 0.2}))
    sweep = grid(parameter("alpha", 1, 2), groups=(RowGroup("fold", folds), RowGroup("method", methods)))
    runs = plan_runs(sweep, by_method_file)
    assert [run.folder for run in runs] == [
        f"runs/study/{method},fold={fold},alpha={alpha}/seed=0"
        for fold in (1, 2)
        for method in "mn"
        for alpha in (1, 2)
    ]
    assert runs[-1].arguments == [
        *("--config=n.yaml", "--alpha=2", '--data.val=["b"]', "--lr=0.2", "--run.method=n,fold=2,alpha=2")
    ]
    assert runs[-1].values == {"rows.fold": "2", "config": "n.yaml", "lr": 0.2, "alpha": 2}


def test_rows_that_do_not_show_in_the_name_are_asked_for_names():
    rows = (TiedValues(None, {"lr": 0.1}), TiedValues(None, {"lr": 0.2}))
    sweep = grid(parameter("config", "m.yaml", varies=False), groups=(RowGroup("rate", rows),))
    with pytest.raises(InputError, match="give rows names") as raised:
        plan_runs(sweep, by_method_file)
    assert raised.value.problems == ("runs/study/m/seed=0: lr=0.1; lr=0.2",)


def test_a_config_can_be_written_in_a_row(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    files = [
        parameter(f"config.{name}", f"configs/{name}.yaml", varies=False) for name in ("model/unet", "data/fets2021")
    ]
    change = TiedValues(None, {"config.change": {"run": {"method": "short"}, "data": {"train_limit": None}}})
    (run,) = plan_runs(grid(*files, groups=(RowGroup("change", (change,)),)), FitOptions())
    assert run.folder == "runs/fets2021/short/seed=0"
    assert '--config={"run": {"method": "short"}, "data": {"train_limit": null}}' in run.arguments


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
    resolve = FitOptions()
    for sweep in read_sweeps(path):
        for combination in list(sweep.combinations())[:2]:
            run = plan_run(sweep, combination, resolve)
            assert Path(run.folder).name == f"seed={combination.values.get('seed_everything', 0)}"
            # and what it is started with gives that folder
            options, seed = resolve(tuple(run.arguments))
            assert str(options.path(seed)) == run.folder


def test_what_the_command_line_refuses_is_said(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    base = [parameter(f"config.{name}", f"configs/{name}.yaml") for name in ("model/unet", "data/fets2021")]
    sweep = grid(*base, parameter("data.batch_sise", 1), parameter("seed_everything", 0, 1))
    with pytest.raises(InputError) as raised:
        plan_runs(sweep, FitOptions())
    assert len(raised.value.problems) == 1
    assert "batch_sise" in raised.value.problems[0]


def test_the_agent_of_wandb_asks_for_the_same_runs(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    path = CONFIGS / "sweeps/fets2021.yaml"
    sweep = read_for_wandb(path)
    command = create_sweep_command(yaml.safe_load(path.read_text())["command"])
    assert command[:3] == ["riskft", "sweep", "agent"]
    assert (CONFIGS.parent / command[3]).samefile(path)
    for values in [combination.values for combination in sweep.combinations()][:3]:
        # the agent's own order is not the file's
        names = random.Random(0).sample(list(values), len(values))
        asked = create_sweep_command_args({"args": {name: {"value": values[name]} for name in names}})["args"]
        given = given_values(sweep, asked)
        assert given == values
        assert list(given) == list(values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"parameters": {"a": {"value": 1}}, "rows": {"g": [{"b": 1}]}}, "holds rows"),
        ({"sweeps": [{"name": name, "parameters": {"a": {"value": 1}}} for name in "ab"]}, "holds several sweeps"),
    ],
)
def test_the_agent_says_what_wandb_does_not_understand(tmp_path, content, words):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=rf"{words}, which W&B's server does not understand.*--local"):
        read_for_wandb(path)


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
