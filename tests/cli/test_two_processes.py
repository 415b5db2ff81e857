"""Two processes give what one gives: maps bit for bit, cases once each, one W&B run; plain start and `fabric run`."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked_runs import forked, ranks
from monai.networks.nets import UNet
from tiny_cohort import write_tiny_cohort
from warm_python import warm_python

from riskft.run.risk import StoreFiles

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
BIN = Path(sys.executable).parent
PLAIN = [sys.executable, "-m", "riskft.cli"]
FORKED = ()
FABRIC = [str(BIN / "fabric"), "run", "--accelerator", "cpu", "--devices", "2", str(BIN / "riskft")]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four training cases and a source checkpoint with three classes."""
    root = tmp_path_factory.mktemp("ddp")
    manifest = write_tiny_cohort(root / "cohort", subjects=7)
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    return root, manifest


def launch(study, name, start, devices, command="fit"):
    root, manifest = study
    arguments = [
        *(command, "--config", str(TINY), "--config", str(CONFIGS / "method/riskft.yaml")),
        *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / f"cache-{name}")),
        *("--run.root", str(root / f"runs-{name}"), "--model.source.checkpoint", str(root / "source.pt")),
        *("--model.source.network.init_args.out_channels", "3", "--trainer.devices", str(devices)),
    ]
    if start is FORKED:
        log = root / f"{name}-{command}.log"
        processes = [forked(arguments, log)] if devices == 1 else ranks(arguments, log, size=devices)
        assert [process.wait(240) for process in processes] == [0] * devices, processes[0].text
        return root / f"runs-{name}/tiny/riskft/seed=0"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*start, *arguments, "--trainer.strategy", "ddp"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return root / f"runs-{name}/tiny/riskft/seed=0"


def test_two_processes_equal_one(study, monkeypatch):
    one = launch(study, "one", FORKED, 1)
    two = launch(study, "two", PLAIN, 2)
    with warm_python("fit") as python:
        monkeypatch.setenv("PYTHON_EXEC", str(python))  # for torchrun, which `fabric run` calls
        fabric = launch(study, "fabric", FABRIC, 2)
    summaries = [json.loads((folder / "risk/summary.json").read_text()) for folder in (one, two, fabric)]
    assert len(summaries[0]["joint"][0]) == 3
    for other in summaries[1:]:
        for key in ("joint", "leep", "class_hardness", "class_weight", "weight_counts", "bytes"):
            assert other.get(key) == summaries[0].get(key), key
        for subject in (f"case{number:02d}" for number in range(5)):
            stores = [StoreFiles(Path(summary["maps"])) for summary in (summaries[0], other)]
            for name in ("weight_path", "hardness_path"):
                maps = [getattr(store, name)(subject) for store in stores]
                assert maps[0].read_bytes() == maps[1].read_bytes()
    for folder in (two, fabric):
        assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
        assert (folder / "checkpoints/best.ckpt").is_file()
        # half as many steps an epoch, each with twice as many patches
        steps = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        assert steps * 2 == torch.load(one / "checkpoints/last.ckpt", weights_only=True)["global_step"]

    launch(study, "two", FORKED, 2, command="test")
    with (two / "cases.csv").open() as stream:
        rows = [(row["subject"], row["class_name"]) for row in csv.DictReader(stream)]
    assert rows == [(subject, name) for subject in ("case05", "case06") for name in ("shell", "core")]

    launch(study, "two", FORKED, 2, command="predict")
    assert sorted(path.name for path in (two / "predictions").iterdir()) == ["case05.nii.gz", "case06.nii.gz"]
