"""A sweep on a real SLURM: job array, two processes a run, preemption, failure, and its table."""

import contextlib
import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from monai.networks.nets import UNet
from one_node import one_node_slurm
from tiny_cohort import write_tiny_cohort
from warm_python import warm_python

from riskft.cli import main

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 20
#: Study and seed of each run.
RUNS = (("calm", 0), ("disturbed", 0), ("calm", 1))

pytestmark = pytest.mark.slow


def riskft(*arguments):
    """Runs a command in this process and returns what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([str(argument) for argument in arguments])
    return printed.getvalue()


def parameters(root, manifest, **more):
    given = {
        "config.base": ROOT / "tests/cli/tiny.yaml",
        "config.method": ROOT / "configs/method/riskft.yaml",
        "data.reader.init_args.csv": manifest,
        "data.cache_dir": root / "cache",
        "run.root": root / "runs",
        "model.source.checkpoint": root / "source.pt",
        "model.source.network.init_args.out_channels": 3,
    }
    constants = {name: {"value": value if isinstance(value, int) else str(value)} for name, value in given.items()}
    return {**constants, **more}


def write_sweep(path, name, entries, **more):
    content = {"name": name, "method": "grid", "parameters": entries, **more}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def wait_for(reached, folder, seconds=300):
    end = time.monotonic() + seconds
    while not reached():
        logs = "\n".join(f"{log}:\n{log.read_text()[-3000:]}" for log in folder.rglob("log.txt"))
        assert time.monotonic() < end, logs
        time.sleep(0.5)


def in_queue():
    done = subprocess.run(["squeue", "--noheader", "--array"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def slurm():
    with one_node_slurm() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")  # or tables are folded
        yield folder


@pytest.fixture(scope="module")
def python():
    """A Python for the jobs of a sweep, which start 16 processes."""
    with warm_python("fit", "test") as program:
        yield str(program)


@pytest.fixture(scope="module")
def study(slurm, python, tmp_path_factory):
    """A run, another that differs only in its name, and one of another seed, with two processes per run.

    The second is told to stop, and then requeued from outside.
    """
    root = tmp_path_factory.mktemp("sweep")
    manifest = write_tiny_cohort(root / "cohort", subjects=7)
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    entries = parameters(root, manifest, **{"trainer.max_epochs": {"value": EPOCHS}})
    rows = [{"run.study": name, "seed_everything": seed} for name, seed in RUNS]
    sweep = write_sweep(root / "sweep.yaml", "preempted", entries, rows={"run": rows})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", python)
        riskft("sweep", sweep, "--submit", "--slurm.tasks_per_node", 2)
    folder = root / "runs/sweeps/preempted"
    job = json.loads((folder / "jobs.json").read_text())[0]["job"]
    runs = {(name, seed): root / f"runs/{name}/riskft/seed={seed}" for name, seed in RUNS}
    disturbed, task = runs["disturbed", 0], f"{job}_{RUNS.index(('disturbed', 0))}"
    wait_for((disturbed / "checkpoints/last.ckpt").is_file, root)
    subprocess.run(["scancel", "--signal=USR1", task], check=True)
    # its second start puts the curves of the first aside
    wait_for((disturbed / "metrics.1.csv").is_file, root)
    wait_for((disturbed / "metrics.csv").is_file, root)
    subprocess.run(["scontrol", "requeue", task], check=True)
    wait_for(lambda: not in_queue(), root)
    return root, manifest, sweep, runs


def test_all_runs_end_with_the_weights_of_the_undisturbed_one(study):
    runs = study[3]
    weights = {}
    for name, folder in runs.items():
        assert json.loads((folder / "sweep.json").read_text())["done"] == ["fit", "test"], (
            folder / "log.txt"
        ).read_text()
        checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        assert checkpoint["epoch"] == EPOCHS - 1
        weights[name] = checkpoint["state_dict"]
        with (folder / "cases.csv").open() as stream:
            assert [row["subject"] for row in csv.DictReader(stream)] == ["case05"] * 2 + ["case06"] * 2
    for key, value in weights["calm", 0].items():
        torch.testing.assert_close(weights["disturbed", 0][key], value, rtol=0, atol=1e-6)
    network = [key for key in weights["calm", 0] if key.startswith("network.")]
    assert any((weights["calm", 0][key] != weights["calm", 1][key]).any() for key in network)
    # it did stop and go on twice: its curves are in three parts
    parts = {name: len(list(folder.glob("metrics*.csv"))) for name, folder in runs.items()}
    assert parts == {name: 3 if name == ("disturbed", 0) else 1 for name in runs}
    assert "back in the queue" in (runs["disturbed", 0] / "log.txt").read_text()


def test_a_preempted_run_keeps_its_wandb_id(study):
    runs = study[3]
    own = (runs["disturbed", 0] / "wandb_id").read_text().strip()
    parts = sorted(path.name for path in (runs["disturbed", 0] / "wandb").glob("offline-run-*"))
    ids = [re.sub(r"offline-run-\d+_\d+-", "", part) for part in parts]
    assert ids == [own, own, own, f"{own}-test"]


def test_what_is_finished_does_not_run_again(study):
    root, _, sweep, runs = study
    before = (runs["calm", 0] / "checkpoints/last.ckpt").stat().st_mtime_ns
    assert "3 runs, 0 to do" in riskft("sweep", sweep, "--submit")
    assert len(json.loads((root / "runs/sweeps/preempted/jobs.json").read_text())) == 1
    assert (runs["calm", 0] / "checkpoints/last.ckpt").stat().st_mtime_ns == before
    table = riskft("sweep", "status", root / "runs/sweeps/preempted")
    assert "3 runs: 3 finished" in table
    assert f"(epoch {EPOCHS - 1})" in table
    commands = riskft("sweep", "offline", root / "runs/sweeps/preempted").splitlines()
    # a fit and a test each, and the disturbed one's two further starts
    assert len(commands) == 3 * 2 + 2


def test_two_tasks_of_srun_give_the_maps_of_one_process(study, tmp_path):
    root, manifest, _, runs = study
    entries = parameters(tmp_path, manifest)
    entries["model.source.checkpoint"]["value"] = str(root / "source.pt")
    options = [
        f"--{'config' if name.startswith('config.') else name}={entry['value']}" for name, entry in entries.items()
    ]
    main(["fit", *options, "--trainer.max_epochs=1"])
    one, two = (
        json.loads((folder / "risk/summary.json").read_text())
        for folder in (tmp_path / "runs/tiny/riskft/seed=0", runs["calm", 0])
    )
    for key in ("joint", "leep", "class_hardness", "class_weight"):
        assert two[key] == one[key], key
    for subject in (f"case{number:02d}" for number in range(4)):
        volumes = [Path(summary["maps"]) / f"{subject}_weight.nii" for summary in (one, two)]
        assert volumes[0].read_bytes() == volumes[1].read_bytes()


def test_a_run_that_fails_says_why_and_holds_back_what_needs_it(study, tmp_path):
    manifest = study[1]
    entries = parameters(tmp_path, manifest)  # where there is no source.pt
    first = write_sweep(tmp_path / "first.yaml", "first", entries)
    second = write_sweep(tmp_path / "second.yaml", "second", {**entries, "run.method": {"value": "second"}})
    riskft("sweep", first, second, "--submit")
    wait_for(lambda: "Dependency" in riskft("sweep", "status", tmp_path / "runs/sweeps/second"), tmp_path)
    wait_for(lambda: not in_queue(), tmp_path)
    table = riskft("sweep", "status", tmp_path / "runs/sweeps/first")
    assert "1 failed" in table
    assert "source.pt" in table
    assert "1 missing" in riskft("sweep", "status", tmp_path / "runs/sweeps/second")
