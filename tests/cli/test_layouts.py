"""The shipped data configs on cohorts in the real layouts: FeTS (NIfTI, LPS), iSeg (Analyze), MSD (4-D) and so on."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from layouts import WRITERS, Layout
from monai.networks.nets import UNet

from riskft.cli import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"
QUICK = TINY.with_name("quick.yaml")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    main(["data", "phantom", str(root / "cohort"), "--subjects", "6", "--spacing", "4"])
    torch.manual_seed(0)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in UNet(3, 1, 2, (4, 8), (2,)).state_dict().items()}},
        root / "source.pt",
    )
    return root


FETS_SPLIT = ["--data.split", "{class_path: riskft.FractionSplit, init_args: {val: 0.2, test: 0.2}}"]
ISEG_SPLIT = [
    "--data.split",
    '{class_path: riskft.ListSplit, init_args: {train: ["subject-[1-3]"], val: ["subject-4"], test: ["subject-5"]}}',
]


@pytest.mark.parametrize(
    ("data", "layout", "modalities", "classes", "split", "reference"),
    [
        ("fets2021", "fets", "[t2]", "{whole_tumour: [1, 2, 4]}", FETS_SPLIT, "{0}/{0}_t2.nii.gz"),
        ("fets2021", "fets", "[flair, t1ce]", "{oedema: [2], core: [1, 4]}", FETS_SPLIT, "{0}/{0}_flair.nii.gz"),
        ("iseg2019", "iseg", "[t2]", None, ISEG_SPLIT, "{0}-T2.img"),
    ],
)
def test_both_phases_test_and_maps(cohort, tmp_path, data, layout, modalities, classes, split, reference):
    options = [
        *("--config", str(TINY), "--config", str(CONFIGS / f"data/{data}.yaml")),
        *("--config", str(CONFIGS / "method/riskft.yaml"), "--trainer.max_epochs", "1"),
        *("--data.reader.init_args.root", str(cohort / "cohort" / layout), "--data.modalities", modalities, *split),
        *(["--data.labels.classes", classes] if classes else []),
        *("--data.patch_size", "[16,16,16]", "--data.num_workers", "0", "--data.patches_per_volume", "2"),
        *("--data.preprocessing.spacing", "[4,4,5]", "--data.cache_dir", str(tmp_path / "cache")),
        *("--run.root", str(tmp_path / "runs"), "--model.source.checkpoint", str(cohort / "source.pt")),
        *("--wandb.enabled", "false"),
    ]
    main(["data", "check", *options])
    main(["fit", *options])
    folder = tmp_path / "runs" / data / "riskft/seed=0"
    main(["test", "--config", str(folder / "config.yaml")])
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    assert all(int(row["voxels_true"]) > 0 for row in rows)
    main(["riskmap", *options, "--out", str(tmp_path / "maps")])
    maps = sorted((tmp_path / "maps").glob("*_weight.nii.gz"))
    assert maps
    for path in maps:
        scan = nib.load(cohort / "cohort" / layout / reference.format(path.name.removesuffix("_weight.nii.gz")))
        risk = nib.load(path)
        assert risk.shape == scan.shape[:3]
        np.testing.assert_allclose(risk.affine, scan.affine, atol=1e-6)


def options_of(config: str, layout: Layout) -> list[str]:
    """The shipped config, with the data's own places, modalities and classes."""
    arguments = [
        part
        for name, value in layout.arguments.items()
        for part in (f"--data.reader.init_args.{name}", value if isinstance(value, str) else json.dumps(value))
    ]
    shared = layout.options[layout.options.index("--data.modalities") :]
    return ["--config", str(CONFIGS / f"data/{config}.yaml"), *arguments, *shared]


@pytest.mark.parametrize("name", ["msd", "nnunet", "bids"])
def test_public_layouts_through_both_phases(name, tmp_path):
    layout = WRITERS[name](tmp_path / "data", 6)
    torch.manual_seed(0)
    source = tmp_path / "source.pt"
    torch.save({"state_dict": UNet(3, 2, 2, (4, 8), (2,)).state_dict()}, source)
    options = [
        *("--config", str(TINY), *options_of(name, layout), "--config", str(CONFIGS / "method/riskft.yaml")),
        *("--config", str(QUICK), "--trainer.max_epochs", "1"),
        *("--data.patch_size", "[8,8,8]", "--data.num_workers", "0"),
        *("--data.cache_dir", str(tmp_path / "cache"), "--run.root", str(tmp_path / "runs")),
        *("--model.source.checkpoint", str(source), "--model.source.network.init_args.in_channels", "2"),
    ]
    main(["data", "check", *options])
    main(["fit", *options])
    folder = tmp_path / "runs" / name / "riskft/seed=0"
    main(["test", "--config", str(folder / "config.yaml")])
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    *train, _, test = layout.cases
    label = nib.load(layout.cases[test]["label"])
    truth = np.asarray(label.dataobj)
    assert {row["subject"] for row in rows} == {test}
    assert [int(row["voxels_true"]) for row in rows] == [int((truth == value).sum()) for value in layout.made_of]
    main(["riskmap", *options, "--out", str(tmp_path / "maps")])
    maps = sorted((tmp_path / "maps").glob("*_weight.nii.gz"))
    assert [path.name.removesuffix("_weight.nii.gz") for path in maps] == train
    for path in maps:
        risk = nib.load(path)
        assert risk.shape == label.shape
        np.testing.assert_allclose(risk.affine, label.affine, atol=1e-5)
