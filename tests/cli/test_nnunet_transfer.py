"""From a model that nnU-Net itself has trained to a fine-tuned network, through both programs' own commands."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from nnunet_env import CHANNELS, Nnunet, nnunet_python, write_raw
from tiny_cohort import rotated_affine

from riskft import NnunetReader, nnunet_network
from riskft.cli import main
from riskft.data.labels import LabelMap
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.source.load import load_source
from riskft.source.packages import find_package
from riskft.source.reading import outputs_of
from riskft.source.source import Source

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICK = Path(__file__).with_name("quick.yaml")
DATASET = "Dataset001_Blobs"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A model of two channels and three classes, on scans that are coarse along x, and what nnU-Net makes of a case."""
    root = tmp_path_factory.mktemp("nnunet")
    program = Nnunet(nnunet_python(), root)
    labels = {"background": 0, "shell": 1, "core": 2}
    raw = write_raw(root / "raw" / DATASET, CHANNELS, labels, rotated_affine((2.5, 1.2, 1.5)))
    images = [raw / f"imagesTr/case0_{channel:04d}.nii.gz" for channel in range(2)]
    model, predicted = program.train_and_predict(DATASET, images)
    return model, raw, predicted


def in_riskft_order(array, package):
    """Returns (C, *spatial) with nnU-Net's axes as (C, x, y, z)."""
    return np.ascontiguousarray(array.transpose(0, *(1 + axis for axis in package.kernel_axes)))


def test_logits_are_nnunet_s_own(trained):
    model, _, predicted = trained
    package = find_package(model)
    assert json.loads((model / "plans.json").read_text())["transpose_forward"] == [2, 0, 1]
    assert package.kernel_axes == (0, 2, 1)
    network = nnunet_network(**package.config["model"]["source"]["network"]["init_args"])
    size = package.config["data"]["patch_size"]
    source = load_source(Source(network, str(model)), in_channels=2, size=size)
    assert source.class_names == ("background", "shell", "core")
    patch = in_riskft_order(predicted["patch"], package)
    assert list(patch.shape[1:]) == size
    with torch.no_grad():
        logits = outputs_of(source.network(torch.from_numpy(patch)[None]))[0][0].numpy()
    expected = in_riskft_order(predicted["logits"], package)
    assert expected.std() > 0.1
    assert np.abs(logits - expected).max() <= 1e-4


def test_the_prepared_volume_is_nnunet_s_own(trained):
    """Where nothing is resampled, for there nnU-Net interpolates by splines, riskft linearly."""
    model, raw, predicted = trained
    package = find_package(model)
    options = dict(package.config["data"]["preprocessing"])
    assert options.pop("intensity") == {"class_path": "riskft.ZScoreIntensity", "init_args": {"masked": True}}
    case = NnunetReader(raw).cases(list(CHANNELS))[0]
    prepared = preprocess(case, LabelMap({"shell": [1], "core": [2]}), Preprocessing(**options))
    # nnU-Net divides by the population's standard deviation, riskft by the sample's
    np.testing.assert_allclose(prepared.image.numpy(), in_riskft_order(predicted["volume"], package), atol=2e-3)


def test_fine_tuning_from_the_folder(trained, tmp_path):
    """On another contrast, in one channel, with other classes, in nnU-Net's raw layout."""
    model, _, _ = trained
    labels = {"background": 0, "rim": 1, "centre": 2}
    raw = write_raw(tmp_path / "raw", ("t2",), labels, rotated_affine((2.5, 1.2, 1.5)), inverted=True)
    main([
        "fit", "--config", str(CONFIGS / "method/riskft.yaml"),
        "--config", str(CONFIGS / "trainer/cpu.yaml"), "--config", str(QUICK), "--model.source.checkpoint", str(model),
        "--data.reader", "riskft.NnunetReader", "--data.reader.root", str(raw), "--data.modalities", "[t2]",
        "--data.split", "{class_path: riskft.FractionSplit, init_args: {val: 0.25, test: 0.25}}",
        "--data.patches_per_volume", "2", "--data.batch_size", "2", "--data.num_workers", "0",
        "--data.cache_dir", str(tmp_path / "cache"), "--run.root", str(tmp_path / "runs"), "--run.study", "nnunet",
        "--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1",
        "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false",
    ])  # fmt: skip
    folder = tmp_path / "runs/nnunet/riskft/seed=0"

    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["source"]["network"]["class_path"] == "riskft.nnunet_network"
    assert config["data"]["patch_size"] == find_package(model).config["data"]["patch_size"]
    assert config["data"]["preprocessing"]["orientation"] is None
    assert config["data"]["preprocessing"]["spacing"] == pytest.approx([2.5, 1.2, 1.5])

    with (folder / "adaptation.csv").open() as stream:
        status = {row["parameter"]: row["status"] for row in csv.DictReader(stream)}
    adapted = {key for key, value in status.items() if value == "adapted"}
    assert {key for key in adapted if "seg_layers" in key} == {key for key in status if "seg_layers" in key}
    assert {key.removeprefix("decoder.") for key in adapted if "seg_layers" not in key} == {
        "encoder.stages.0.0.convs.0.conv.weight", "encoder.stages.0.0.convs.0.all_modules.0.weight"
    }  # fmt: skip
    assert {value for key, value in status.items() if key not in adapted} == {"loaded"}

    summary = json.loads((folder / "risk/summary.json").read_text())
    assert np.isfinite(summary["leep"])
    assert summary["leep"] <= 0
    main(["test", "--config", str(folder / "config.yaml")])
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["class_name"] for row in rows} == {"rim", "centre"}
    assert len(rows) == 2 * 2
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


def test_the_environment_that_is_named_is_taken(monkeypatch):
    monkeypatch.setitem(os.environ, "RISKFT_NNUNET_PYTHON", "/somewhere/bin/python")
    assert nnunet_python() == Path("/somewhere/bin/python")
