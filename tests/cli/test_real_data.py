"""The development data, where RISKFT_DATA points to them: the check, and flair -> t1ce through both phases."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    subprocess.run(
        [sys.executable, str(ROOT / "experiments/manifests.py"), DATA, str(folder), "--absolute"], check=True
    )
    return folder


@pytest.mark.parametrize(
    ("config", "table", "cases"), [("brats15_2mm", "brats15_2mm", 6), ("open_ms", "open_ms_mni", 3)]
)
def test_check_finds_no_fault(manifests, capsys, config, table, cases):
    configs = ["--config", str(CONFIGS / "model/unet.yaml"), "--config", str(CONFIGS / f"data/{config}.yaml")]
    main(["data", "check", *configs, "--data.reader.init_args.csv", str(manifests / f"{table}.csv")])
    assert f"{cases} cases" in capsys.readouterr().out


def test_flair_to_t1ce_runs_through_both_phases(manifests, tmp_path):
    common = [
        *("--config", str(CONFIGS / "demo/base.yaml"), "--config", str(CONFIGS / "data/brats15_2mm.yaml")),
        *("--data.reader.init_args.csv", str(manifests / "brats15_2mm.csv"), "--data.augment", "null"),
        *("--data.cache_dir", str(tmp_path / "cache"), "--run.root", str(tmp_path / "runs")),
    ]
    scratch, riskft = (["--config", str(CONFIGS / f"method/{name}.yaml")] for name in ("scratch", "riskft"))
    source = ["--data.modalities", "[flair]", "--run.method", "source", "--trainer.max_epochs", "10"]
    main(["fit", *common, *scratch, *source])
    checkpoint = tmp_path / "runs/brats15_2mm/source/seed=0/checkpoints/best.ckpt"
    main(["fit", *common, *riskft, "--model.source.checkpoint", str(checkpoint), "--trainer.max_epochs", "5"])
    folder = tmp_path / "runs/brats15_2mm/riskft/seed=0"
    main(["test", "--config", str(folder / "config.yaml")])
    summary = json.loads((folder / "risk/summary.json").read_text())
    background, tumour = summary["class_hardness"]
    assert tumour > background  # a rare class that looks different in the other contrast
    assert 0 < -summary["leep"] < summary["label_entropy"] * 1.05
    # three training cases and the validation case were mapped, and the two test cases scored
    assert len(summary["maps"]) > 0
    assert len(list((folder / "heatmaps").glob("*.png"))) == 3
    assert len((folder / "cases.csv").read_text().splitlines()) == 1 + 2
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 5 - 1
