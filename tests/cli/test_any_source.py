"""Through the real command line: sources of other kinds, regions, described labels, new scans of a folder."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets import UNet
from safetensors.torch import save_file

from riskft import MeshNet
from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


def options(root, manifest, *more, method="riskft"):
    return [
        *("--config", str(TINY), "--config", str(CONFIGS / "method" / f"{method}.yaml")),
        *("--config", str(QUICK)),
        *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
        *("--run.root", str(root / "runs"), "--trainer.max_epochs", "1"),
        *more,
    ]


def scores(folder):
    with (folder / "cases.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def regions_run(tmp_path_factory, tiny_manifest):
    """A two-channel sigmoid source, fine-tuned to two classes that are scored as nested regions."""
    root = tmp_path_factory.mktemp("regions")
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8), strides=(2,))
    torch.save(network.state_dict(), root / "regions.pt")
    more = [
        *("--model.source.checkpoint", str(root / "regions.pt"), "--model.source.output", "riskft.SigmoidOutput"),
        *("--data.labels.regions", "{whole: [1, 2], core: [2]}"),
    ]
    main(["fit", *options(root, tiny_manifest, *more)])
    folder = root / "runs/tiny/riskft/seed=0"
    main(["test", "--config", str(folder / "config.yaml")])
    return folder


def test_a_sigmoid_source_makes_maps_and_starts_the_head(regions_run):
    summary = json.loads((regions_run / "risk/summary.json").read_text())
    joint = np.array(summary["joint"])
    assert joint.shape == (3, 4)  # three target classes; none, first, second, both
    assert joint.sum() == pytest.approx(sum(summary["class_voxels"]), rel=1e-6)
    rows = list(csv.DictReader((regions_run / "adaptation.csv").open()))
    assert {row["status"] for row in rows} == {"loaded", "adapted"}


def test_regions_are_what_is_scored(regions_run):
    rows = scores(regions_run)
    assert {row["class_name"] for row in rows} == {"whole", "core"}
    by_case = {(row["subject"], row["class_name"]): int(row["voxels_true"]) for row in rows}
    for subject in {row["subject"] for row in rows}:
        assert by_case[subject, "whole"] > by_case[subject, "core"] > 0
    header = (regions_run / "metrics.csv").read_text().splitlines()[0]
    assert "val/dice/whole" in header
    assert "val/dice/shell" not in header


def test_prediction_of_a_folder_keeps_names_geometry_and_type(regions_run, tiny_manifest, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    original = nib.load(tiny_manifest.parent / "case05_t2.nii.gz")
    scan = nib.Nifti1Image(np.asarray(original.dataobj).astype(np.int16), original.affine)
    nib.save(scan, scans / "somebody.nii.gz")
    shutil.copy(tiny_manifest.parent / "case04_t2.nii.gz", scans / "another.nii.gz")
    out = tmp_path / "out"
    more = ["--images", str(scans), "--out", str(out), "--probabilities", "true"]
    main(["predict", "--config", str(regions_run / "config.yaml"), *more])
    assert {path.name for path in out.iterdir()} == {
        "somebody.nii.gz", "another.nii.gz", "somebody_probabilities.nii.gz", "another_probabilities.nii.gz"
    }  # fmt: skip
    found = nib.load(out / "somebody.nii.gz")
    assert found.get_data_dtype() == np.int16
    assert nib.load(out / "another.nii.gz").get_data_dtype() == np.float32
    assert found.shape == scan.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)
    probabilities = nib.load(out / "somebody_probabilities.nii.gz")
    values = probabilities.get_fdata()
    assert values.shape == (*scan.shape, 3)
    assert probabilities.get_data_dtype() == np.float32
    np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)
    classes = np.asarray(found.dataobj)
    inside = values.max(-1) > 0.5
    np.testing.assert_array_equal(values.argmax(-1)[inside], classes[inside])


@pytest.fixture(scope="module")
def meshnet(tmp_path_factory):
    """A tiny MeshNet in brainchop's files."""
    folder = tmp_path_factory.mktemp("meshnet")
    layers = [
        {"in_channels": 1, "out_channels": 5, "kernel_size": 3, "padding": 1, "stride": 1, "dilation": 1},
        {"in_channels": 5, "out_channels": 5, "kernel_size": 3, "padding": 2, "stride": 1, "dilation": 2},
        {"in_channels": 5, "out_channels": 3, "kernel_size": 1, "padding": 0, "stride": 1, "dilation": 1},
    ]
    description = {"header": "tiny", "bnorm": False, "dropout_p": 0, "bias": True, "layers": layers}
    (folder / "tiny.json").write_text(json.dumps(description))
    torch.manual_seed(1)
    save_file(MeshNet(layers=layers).state_dict(), folder / "tiny.safetensors")
    return folder / "tiny.json"


def test_a_model_that_describes_itself_gives_defaults_that_the_user_s_config_overrides(
    meshnet, tiny_manifest, tmp_path
):
    config = yaml.safe_load(TINY.read_text())
    del config["model"]["source"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    arguments = options(tmp_path, tiny_manifest, "--model.source.checkpoint", str(meshnet))
    arguments[arguments.index(str(TINY))] = str(mine)
    # one case, because the model's own window of 192 voxels takes its time
    main(["fit", *arguments, "--data.preprocessing.spacing", "[1.5, 1.5, 2.0]", "--data.train_limit", "1"])
    folder = tmp_path / "runs/tiny/riskft/seed=0"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    # from the model's own files
    assert saved["model"]["source"]["network"]["class_path"] == "riskft.MeshNet"
    assert len(saved["model"]["source"]["network"]["init_args"]["layers"]) == 3
    assert saved["model"]["source"]["inferer"]["init_args"]["roi_size"] == [192, 192, 192]
    assert saved["data"]["preprocessing"]["orientation"] == "LIA"
    assert saved["data"]["preprocessing"]["intensity"]["class_path"] == "riskft.PercentileIntensity"
    # from the user
    assert saved["data"]["preprocessing"]["spacing"] == [1.5, 1.5, 2.0]
    assert saved["data"]["patch_size"] == [16, 16, 16]
    # the run stands by itself: the source's files are not needed any more
    meshnet.rename(meshnet.with_suffix(".gone"))
    try:
        main(["test", "--config", str(folder / "config.yaml")])
    finally:
        meshnet.with_suffix(".gone").rename(meshnet)
    assert len(scores(folder)) == 4


def test_labels_come_from_the_data_set_s_description(tiny_manifest, tmp_path):
    """An nnU-Net raw folder whose dataset.json names classes; the run's config then has them in full."""
    raw = tmp_path / "Dataset001_Tiny"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case in range(6):
        shutil.copy(tiny_manifest.parent / f"case{case:02d}_t2.nii.gz", raw / f"imagesTr/p{case}_0000.nii.gz")
        shutil.copy(tiny_manifest.parent / f"case{case:02d}_label.nii.gz", raw / f"labelsTr/p{case}.nii.gz")
    description = {
        "channel_names": {"0": "T2"},
        "labels": {"background": 0, "rind": 1, "stone": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    config = yaml.safe_load(TINY.read_text())
    config["data"] |= {
        "reader": {"class_path": "riskft.NnunetReader", "init_args": {"root": str(raw)}},
        "modalities": ["T2"],
        "labels": None,
        "split": {"class_path": "riskft.FractionSplit"},
        "cache_dir": str(tmp_path / "cache"),
    }
    config["trainer"]["max_epochs"] = 1
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    scratch = str(CONFIGS / "method/scratch.yaml")
    main([
        "fit", "--config", str(tmp_path / "mine.yaml"), "--config", scratch, "--config", str(QUICK),
        "--run.root", str(tmp_path / "runs"),
    ])  # fmt: skip
    saved = yaml.safe_load((tmp_path / "runs/tiny/scratch/seed=0/config.yaml").read_text())
    assert saved["data"]["labels"]["classes"] == {"rind": [1], "stone": [2]}


def test_a_model_that_describes_itself_is_trained_from_scratch(meshnet, tiny_manifest, tmp_path, caplog):
    config = yaml.safe_load(TINY.read_text())
    del config["model"]["source"]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(config))
    arguments = options(tmp_path, tiny_manifest, "--model.source.checkpoint", str(meshnet), method="scratch")
    arguments[arguments.index(str(TINY))] = str(mine)
    main(["fit", *arguments, "--trainer.limit_train_batches", "1"])
    folder = tmp_path / "runs/tiny/scratch/seed=0"
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["source"]["network"]["class_path"] == "riskft.MeshNet"
    assert saved["data"]["preprocessing"]["orientation"] == "LIA"
    assert "are not loaded, because model.source.load is none" in caplog.text
    assert json.loads((folder / "record.json").read_text())["start"]["fraction"] == 0
    assert not (folder / "adaptation.csv").exists()
