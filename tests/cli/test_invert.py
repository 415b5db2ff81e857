"""A source of the opposite contrast: phase 1 finds that it is to be shown inverted images, and all else keeps that."""

import csv
import json
from pathlib import Path

import pytest
import torch

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


def fit(root, manifest, method, *more):
    main(
        [
            *("fit", "--config", str(TINY), "--config", str(CONFIGS / "method" / f"{method}.yaml")),
            *("--config", str(QUICK)),
            *("--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(root / "cache")),
            *("--run.root", str(root / "runs"), *more),
        ]
    )
    return root / "runs/tiny" / method / "seed=0"


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_manifest):
    """A source trained on t1; riskft and a run from scratch on t2, which is t1 inverted."""
    root = tmp_path_factory.mktemp("invert")
    more = ("--run.method", "source", "--data.modalities", "[t1]", "--trainer.max_epochs", "30")
    fit(root, tiny_manifest, "scratch", *more)
    source = root / "runs/tiny/source/seed=0/checkpoints/best.ckpt"
    fit(root, tiny_manifest, "riskft", "--model.source.checkpoint", str(source), "--trainer.max_epochs", "1")
    fit(root, tiny_manifest, "scratch", "--trainer.max_epochs", "1")
    return root, source


def test_the_negative_is_chosen_and_kept(study):
    root, source = study
    run = root / "runs/tiny/riskft/seed=0"
    assert json.loads((run / "risk/manifest.json").read_text())["inverted"] is True
    with (run / "adaptation.csv").open() as stream:
        status = {row["parameter"]: row["status"] for row in csv.DictReader(stream)}
    assert status["model.0.conv.weight"] == "adapted"
    before = torch.load(source, weights_only=True)["state_dict"]["network.model.0.conv.weight"]
    after = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]["network.model.0.conv.weight"]
    # an epoch moves weights a little
    assert torch.nn.functional.cosine_similarity(after.flatten(), -before.flatten(), dim=0) > 0.9
    # of the source as it is, only what the comparison found is left
    folders = list((root / "cache/risk").iterdir())
    assert {path.name for path in folders} > {
        Path(json.loads((run / "risk/summary.json").read_text())["maps"]).parent.name
    }
    assert all((folder / "knowledge.json").is_file() for folder in folders)
    assert not list((root / "cache/risk").rglob("probabilities.npy"))


def test_validity_shows_the_source_the_negative_too(study, tmp_path):
    root, _ = study
    run, scratch = (str(root / "runs/tiny" / method / "seed=0") for method in ("riskft", "scratch"))
    main(["validity", run, "--scratch", scratch, "--out", str(tmp_path / "out"), "--margin", "2"])
    with (tmp_path / "out/validity.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows
