"""A tiny, sound workplace that draws of the fuzz start from: data sets, a source network, finished runs, a sweep."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from layouts import WRITERS
from monai.networks.nets import UNet
from pictures import leave_out_figures
from tiny_cohort import write_tiny_cohort

from riskft.cli import main

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = ("sweep.yaml", "rows.yaml")
VANILLA, SCRATCH = "runs/tiny/vanilla/seed=0", "runs/tiny/scratch/seed=0"
#: What every training of the fuzz is given, first, so that it is short and asks nothing of a network.
SHORT = ("--trainer.max_epochs=1", "--trainer.max_steps=20", "--wandb.enabled=false", "--model.source.invert=false")


@dataclass(frozen=True)
class World:
    """Args: folder: What each draw gets a copy of; layouts: The options of each small data set, by its name."""

    folder: Path
    layouts: dict[str, list[str]]


def shared_world(folder: Path) -> World:
    """Makes the workplace below a folder, or returns the one that another process has made there."""
    folder.mkdir(exist_ok=True)
    layouts = folder / "layouts.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layouts.exists():
            layouts.write_text(json.dumps(make_world(folder / "world").layouts))
    return World(folder / "world", json.loads(layouts.read_text()))


def make_world(folder: Path) -> World:
    """Makes the workplace; every path in it is relative to it, so that it can be copied."""
    folder.mkdir(parents=True)
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        leave_out_figures(patch.setattr)
        write_tiny_cohort(Path("cohort"))
        shutil.copytree(ROOT / "configs", "configs")
        shutil.copy(ROOT / "tests/cli/tiny.yaml", "tiny.yaml")
        torch.manual_seed(0)
        torch.save(UNet(3, 1, 2, (4, 8), (2,)).state_dict(), "source.pt")
        layouts = {}
        for name, write in WRITERS.items():
            root = Path("layouts", name)
            root.mkdir(parents=True)
            layouts[name] = write(root, 4).options
        Path("images").mkdir()
        for case in ("case04", "case05"):
            shutil.copy(f"cohort/{case}_t2.nii.gz", f"images/{case}.nii.gz")
        for method in ("scratch", "vanilla"):
            main(["fit", *fit_options(method), *SHORT])
            main(["test", "--config", f"runs/tiny/{method}/seed=0/config.yaml"])
        _write_sweeps()
        Path("folder").mkdir()
    return World(folder, layouts)


def fit_options(method: str) -> list[str]:
    """Returns the options of a sound training, as its user would write them."""
    source = [] if method == "scratch" else ["--model.source.checkpoint=source.pt"]
    return [
        *("--config=tiny.yaml", f"--config=configs/method/{method}.yaml"),
        *("--data.reader.init_args.csv=cohort/manifest.csv", *source),
    ]


def _write_sweeps() -> None:
    """Writes a sweep of two runs, and plans them without running any; and one that also has rows."""
    parameters = {
        "config.base": {"value": "tiny.yaml"},
        "config.method": {"value": "configs/method/scratch.yaml"},
        "data.reader.init_args.csv": {"value": "cohort/manifest.csv"},
        "run.study": {"value": "swept"},
        "data.batch_size": {"values": [1, 2]},
        **{
            name.removeprefix("--"): {"value": json.loads(value)}
            for name, _, value in (o.partition("=") for o in SHORT)
        },
    }
    sweep = {"name": "swept", "parameters": parameters}
    changes = [{"run.method": f"x{x}", "config.change": {"model": {"head_lr_factor": x}}} for x in (1.0, 2.0)]
    folds = [{"name": 1, "seed_everything": 1, "data.train_limit": "${rows.fold}"}]
    with_rows = {
        "name": "rows",
        "parameters": {**parameters, "data.batch_size": {"value": 1}},
        "rows": {"fold": folds, "change": changes},
    }
    for file, content in zip(SWEEPS, (sweep, {"sweeps": [with_rows]}), strict=True):
        Path(file).write_text(yaml.safe_dump(content))
    from riskft.commands.sweep import RUNS
    from riskft.files import write_json
    from riskft.sweep.plan import plan_runs
    from riskft.sweep.resolve import FitOptions
    from riskft.sweep.spec import read_sweeps
    from riskft.sweep.state import write_record

    runs = plan_runs(read_sweeps(Path(SWEEPS[0]))[0], FitOptions())
    for run in runs:
        write_record(run)
    write_json(Path("runs/sweeps/swept") / RUNS, [run.folder for run in runs])


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in a folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
