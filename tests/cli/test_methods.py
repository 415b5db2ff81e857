"""Every method trains through the real command line, on the same patches, and leaves a run that can be scored."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")
METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A folder with a source checkpoint of three classes without names, and the preprocessed cohort of all methods."""
    root = tmp_path_factory.mktemp("methods")
    torch.manual_seed(0)
    torch.save(UNet(3, 1, 3, (4, 8), (2,)).state_dict(), root / "source.pt")
    return root, tiny_manifest


def fit(study, method, *more, first=()):
    root, manifest = study
    source = [] if method == "scratch" else ["--model.source.checkpoint", str(root / "source.pt")]
    main(
        [
            *("fit", *first, "--config", str(TINY), "--config", str(CONFIGS / f"method/{method}.yaml")),
            *("--config", str(QUICK)),
            *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
            *("--run.root", str(root / "runs"), "--model.source.network.init_args.out_channels", "3", *source),
            *("--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1", *more),
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
    kept = list((study[0] / "cache/risk").rglob("eep.npz"))
    if method in ("distilled", "riskft_hrd"):
        assert sorted(path.parent.name for path in kept) == ["case00", "case01", "case02"]
    if method == "riskft_hrd":
        main(["test", "--config", str(folder / "config.yaml")])
        assert (folder / "cases.csv").is_file()


def test_a_run_with_refreshed_risk_and_distillation_goes_on_as_if_undisturbed(study):
    inner = "--model.loss.init_args.loss.init_args"
    options = ["--model.schedule", "null", f"{inner}.start", "2", f"{inner}.every", "2", f"{inner}.memory", "2"]
    options += [f"{inner}.temper", "false"]  # the network knows nothing yet

    def state(name, epochs, *more):
        folder = study[0] / name
        fit(study, "riskft_hrd", *options, "--run.folder", str(folder), "--trainer.max_epochs", str(epochs), *more)
        return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)

    whole = state("whole", 2)
    kept = state("parts", 1)["state_dict"]["loss.loss._extra_state"]
    assert kept["steps"] == 3
    assert len(kept["windows"]) == 2
    resumed = state("parts", 2, "--ckpt_path", "last")
    assert resumed["global_step"] == whole["global_step"] == 6
    for key, value in whole["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(resumed["state_dict"][key], value, msg=key)
    ends = [content["state_dict"]["loss.loss._extra_state"] for content in (whole, resumed)]
    assert torch.equal(ends[0]["table"], ends[1]["table"])
    assert (ends[0]["table"] != 1).any()


def test_averaged_weights_whichever_config_comes_first(study):
    ema = ["--config", str(CONFIGS / "trainer/ema.yaml")]
    found = []
    for name, order in (("before", {"first": ema}), ("after", {})):
        folder = study[0] / f"averaged_{name}"
        fit(study, "riskft_hrd", *([] if order else ema), "--run.folder", str(folder), **order)
        content = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
        found.append(content["state_dict"])
        own = content["current_model_state"]
        assert any(not torch.equal(own[key], found[-1][key]) for key in own if key.startswith("network."))
    for key, value in found[0].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[1][key], value, rtol=0, atol=0, msg=key)


def test_distillation_without_phase_1_stops_before_training(study, capsys):
    with pytest.raises(SystemExit) as stopped:
        fit(
            study,
            "distilled",
            "--trainer.callbacks",
            "[]",
            "--run.folder",
            str(study[0] / "none"),
            "--model.head_init",
            "random",
        )
    assert stopped.value.code == 1
    assert "needs phase 1: add riskft.RiskMapCallback" in capsys.readouterr().err
