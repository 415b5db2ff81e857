"""The development data, where RISKFT_DATA points to them: the check, and flair -> t1ce through both phases."""

import json
import os
import runpy
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from riskft.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
DATA = os.environ.get("RISKFT_DATA")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not DATA, reason="RISKFT_DATA is not set, see the README"),
]


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifests")
    write = runpy.run_path(str(ROOT / "experiments/manifests.py"))["main"]
    write([DATA, str(folder), "--absolute"])
    return folder


def data_options(table, modality, classes, *more):
    return [
        *("--config", str(CONFIGS / "data/manifest.yaml"), "--data.reader.init_args.csv", str(table)),
        *("--data.modalities", f"[{modality}]", "--data.labels.classes", classes, *more),
    ]


@pytest.mark.parametrize(
    ("table", "modality", "classes", "cases"),
    [
        ("brats15_2mm", "t1ce", "{whole_tumour: [1, 2, 3, 4]}", 6),
        ("open_ms_mni", "t2", "{lesion: [1]}", 3),
    ],
)
def test_check_finds_no_fault(manifests, capsys, table, modality, classes, cases):
    main(["data", "check", *data_options(manifests / f"{table}.csv", modality, classes)])
    assert f"{cases} cases" in capsys.readouterr().out


def test_flair_to_t1ce_runs_through_both_phases(manifests, tmp_path):
    common = [
        *("--config", str(CONFIGS / "model/small_unet.yaml"), "--config", str(CONFIGS / "demo/base.yaml")),
        *data_options(manifests / "brats15_2mm.csv", "t1ce", "{whole_tumour: [1, 2, 3, 4]}", "--data.augment", "null"),
        *("--data.patches_per_volume", "4"),
        *("--run.study", "brats15_2mm"),
        *("--data.cache_dir", str(tmp_path / "cache"), "--run.root", str(tmp_path / "runs")),
    ]
    scratch, riskft = (["--config", str(CONFIGS / f"method/{name}.yaml")] for name in ("scratch", "riskft"))
    source = ["--data.modalities", "[flair]", "--run.method", "source", "--wandb.enabled", "false"]
    main(["fit", *common, *scratch, *source, "--trainer.max_epochs", "10"])
    checkpoint = tmp_path / "runs/brats15_2mm/source/seed=0/checkpoints/best.ckpt"
    short = ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "2"]
    main(["fit", *common, *riskft, "--model.source.checkpoint", str(checkpoint), *short])
    folder = tmp_path / "runs/brats15_2mm/riskft/seed=0"
    main(["test", "--config", str(folder / "config.yaml")])
    summary = json.loads((folder / "risk/summary.json").read_text())
    background, tumour = summary["class_hardness"]
    assert tumour > background  # a rare class that looks different in the other contrast
    assert 0 < -summary["leep"] < summary["label_entropy"] * 1.05
    # three training cases and the validation case were mapped, and the two test cases scored
    assert len(summary["maps"]) > 0
    # panels of two training cases, the validation case and both test cases
    assert len(list((folder / "heatmaps").glob("*.png"))) == 5
    assert len((folder / "cases.csv").read_text().splitlines()) == 1 + 2
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2 - 1


def test_a_published_tissue_network_maps_the_hippocampus(manifests, tmp_path):
    """MeshNet by its own files alone: where it takes the hippocampus for white matter, the map is high."""
    source = Path(DATA) / "pretrained_meshnet/model5_gw_ae.json"
    configs = ["method/riskft", "trainer/cpu"]
    main(
        ["riskmap", *(part for name in configs for part in ("--config", str(CONFIGS / f"{name}.yaml"))),
         *data_options(manifests / "msd_hippocampus.csv", "t1", "{anterior: [1], posterior: [2]}"),
         "--data.patch_size", "[32, 32, 32]", "--data.batch_size", "4", "--data.cache_dir", str(tmp_path),
         "--data.split.class_path", "riskft.ListSplit", "--data.split.init_args.train", "['hippocampus_00*']",
         "--data.train_limit", "2", "--model.source.checkpoint", str(source), "--wandb.enabled", "false",
         "--model.source.inferer.init_args.roi_size", "[96, 96, 96]",
         "--model.source.inferer.init_args.padding_mode", "replicate", "--out", str(tmp_path / "maps")]
    )  # fmt: skip
    summary = json.loads(next((tmp_path / "risk").rglob("summary.json")).read_text())
    assert 0.03 < summary["knowledge"] < 0.3
    joint = np.array(summary["joint"])  # rows background, anterior, posterior; columns background, white, grey
    share = joint[1:].sum(0) / joint.sum(0)
    assert share[1] < 0.3 * share[0]  # white matter is hardly ever hippocampus
    files = sorted((tmp_path / "maps").glob("*_hardness.nii.gz"))
    assert len(files) == 2
    rims, insides = [], []
    for file in files:
        hardness = nib.load(file).get_fdata()
        foreground = hardness > 1  # background is nowhere so hard
        inside = binary_erosion(foreground)
        rims.append(hardness[foreground & ~inside].mean())
        insides.append(hardness[inside].mean())
    assert np.mean(rims) > np.mean(insides)
