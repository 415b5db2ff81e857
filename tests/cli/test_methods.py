"""Every method trains through the real command line, on the same patches, and leaves a run that can be scored."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A folder with a source checkpoint of three classes without names, and the preprocessed cohort of all methods."""
    root = tmp_path_factory.mktemp("methods")
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    return root, tiny_manifest


def fit(study, method, *more):
    root, manifest = study
    source = [] if method == "scratch" else ["--model.source.checkpoint", str(root / "source.pt")]
    main(
        [
            *("fit", "--config", str(TINY), "--config", str(CONFIGS / f"method/{method}.yaml")),
            *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
            *("--run.root", str(root / "runs"), "--model.source.network.init_args.out_channels", "3", *source),
            *("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1", "--wandb.enabled", "false", *more),
        ]
    )
    return root / "runs/tiny" / method / "seed=0"


def losses(folder):
    with (folder / "metrics.csv").open() as stream:
        return [float(row["train/loss"]) for row in csv.DictReader(stream) if row.get("train/loss")]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains(study, method):
    folder = fit(study, method)
    found = losses(folder)
    assert len(found) == 3
    assert np.isfinite(found).all()
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))
    kept = list((study[0] / "cache/risk").rglob("expectation.npz"))
    if method in ("distilled", "riskft_hrd"):
        assert sorted(path.parent.name for path in kept) == ["case00", "case01", "case02"]
    if method == "riskft_hrd":
        main(["test", "--config", str(folder / "config.yaml")])
        assert (folder / "cases.csv").is_file()


def test_refreshed_and_distilled_runs_go_on_as_if_undisturbed(study):
    now = ["--run.root", str(study[0] / "resumed"), "--trainer.max_epochs", "3", "--model.loss.init_args.factor", "0.7"]
    inner = "--model.loss.init_args.loss.init_args."
    now += [f"{inner}start", "2", f"{inner}every", "2", f"{inner}memory", "2"]
    whole = fit(study, "riskft_hrd", *now, "--run.folder", str(study[0] / "whole"))
    del whole
    parts = ["--run.folder", str(study[0] / "parts")]
    fit(study, "riskft_hrd", *now, *parts, "--trainer.limit_train_batches", "3", "--trainer.max_epochs", "1")
    state = torch.load(study[0] / "parts/checkpoints/last.ckpt", weights_only=True)
    kept = state["state_dict"]["loss.loss._extra_state"]
    assert kept["steps"] == 3
    assert len(kept["windows"]) == 2
    assert os.path.getsize(study[0] / "parts/checkpoints/last.ckpt") > 0
