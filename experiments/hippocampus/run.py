"""Transfers a grey- and white-matter network to the hippocampus: both phases on the command line, and a figure.

    python experiments/hippocampus/run.py DATA_ROOT [--train 8] [--epochs 40] [--methods riskft vanilla scratch]

DATA_ROOT holds ``msd_hippocampus/<case>/{t1,label}.nii.gz`` and ``pretrained_meshnet/model5_gw_ae.{json,safetensors}``.
All output is in ``runs/hippocampus``.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from monai.inferers import SlidingWindowInferer

from riskft import MeshNet, expected_empirical_prediction
from riskft.analysis.runs import read_cases
from riskft.cli import main as riskft
from riskft.files import write_text
from riskft.plots.figure import new_figure, save_figure
from riskft.plots.heatmaps import riskiest_slices, upright
from riskft.risk.leep import conditional_from_joint
from riskft.run.folder import RunFolder
from riskft.source.checkpoint import read_checkpoint
from riskft.source.packages import find_package

ROOT = Path(__file__).resolve().parents[2]
RUNS = Path("runs/hippocampus")
COLUMNS = ("T1w", "label", "source: white, grey", "EEP of hippocampus", "hardness (nats)", "weight")
WINDOW = [96, 96, 96]
PATCH = [32, 32, 32]
SUBJECTS = 3

Volume = npt.NDArray[np.float32]


def write_manifest(data_root: Path, tests: int) -> Path:
    """Writes the manifest of a seeded split: 60 % for training, 4 cases for validation, ``tests`` for test."""
    cases = sorted(path for path in (data_root / "msd_hippocampus").iterdir() if path.is_dir())
    order = np.random.default_rng(0).permutation(len(cases))
    parts = {"train": order[: len(cases) * 3 // 5], "val": order[-4:], "test": order[len(cases) * 3 // 5 :][:tests]}
    rows = ["subject,split,t1,label"]
    for split, chosen in parts.items():
        for case in (cases[index].resolve() for index in chosen):
            rows.append(f"{case.name},{split},{case / 't1.nii.gz'},{case / 'label.nii.gz'}")
    path = RUNS / "manifest.csv"
    write_text(path, "\n".join(rows) + "\n")
    return path


def arguments(method: str, source: Path, options: argparse.Namespace, manifest: Path) -> list[str]:
    """Returns a run's options. The run from scratch has the same network and input, with random weights."""
    configs = ["data/manifest", f"method/{method}", "trainer/cpu"]
    result = [part for name in configs for part in ("--config", f"configs/{name}.yaml")]
    result += ["--data.reader.init_args.csv", str(manifest), "--data.cache_dir", str(RUNS / "cache")]
    result += ["--data.labels.classes", "{anterior: [1], posterior: [2]}", "--run.study", "hippocampus"]
    result += ["--data.patch_size", str(PATCH), "--data.batch_size", "4"]
    # a network of 5600 parameters learns faster than one of millions
    result += ["--model.optimizer.init_args.lr", "1.0e-2"]
    result += ["--data.train_limit", str(options.train), "--trainer.max_epochs", str(options.epochs)]
    result += ["--trainer.check_val_every_n_epoch", str(options.epochs), "--run.overwrite", "true"]
    result += ["--wandb.enabled", "false", "--trainer.enable_model_summary", "false"]
    if method != "scratch":
        # the volumes are smaller than the network's field of view of 93 voxels: repeat their border, because with zeros
        # around it the source predicts background everywhere
        window = ["--model.source.inferer.init_args.roi_size", str(WINDOW)]
        window += ["--model.source.inferer.init_args.padding_mode", "replicate"]
        return [*result, "--model.source.checkpoint", str(source), *window]
    package = find_package(source)
    if package is None:
        raise SystemExit(f"{source} is not a MeshNet")
    own = {"model": {"source": {"network": package.config["model"]["source"]["network"]}}}
    own["data"] = {"preprocessing": package.config["data"]["preprocessing"]}
    return ["--config", json.dumps(own), *result]


def run_of(method: str) -> RunFolder:
    return RunFolder(RUNS / method / "seed=0")


def read_maps(subject: str, source: Path) -> list[Volume]:
    """Returns a training case's volumes in the order of ``COLUMNS``, (X, Y, Z) each, from the prepared grid to RAS."""
    risk = run_of("riskft").risk
    summary = json.loads(risk.summary.read_text())
    key = json.loads(risk.manifest.read_text())["training data and preprocessing"][subject]
    prepared, store = RUNS / "cache/cases" / key, risk.store()
    if store is None:
        raise SystemExit(f"{risk.summary} does not say where the maps are")
    image = nib.load(prepared / "image.nii")
    checkpoint = read_checkpoint(source)
    package = find_package(source)
    network = MeshNet(**package.config["model"]["source"]["network"]["init_args"]).eval()
    network.load_state_dict(checkpoint.state)
    grey_values = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)).reshape(1, 1, *image.shape[:3])
    inferer = SlidingWindowInferer(WINDOW, overlap=0.25, mode="gaussian", padding_mode="replicate")
    with torch.no_grad():
        probabilities = inferer(grey_values, network).softmax(1)
    expected = expected_empirical_prediction(probabilities, conditional_from_joint(torch.tensor(summary["joint"])))[0]
    computed = [grey_values[0, 0], probabilities[0].argmax(0), 1 - expected[0]]
    files = [prepared / "label.nii", store.hardness_path(subject), store.weight_path(subject)]
    arrays = [np.asarray(volume, dtype=np.float32) for volume in computed]
    arrays += [np.asarray(nib.load(file).dataobj, dtype=np.float32) for file in files]
    turned = [
        nib.as_closest_canonical(nib.Nifti1Image(array, image.affine)).get_fdata(dtype=np.float32) for array in arrays
    ]
    return [turned[index] for index in (0, 3, 1, 2, 4, 5)]


def map_figure(cases: Sequence[tuple[str, list[Volume]]]) -> Figure:
    """Draws one row per case, the sagittal slice through its riskiest foreground; green is the label's border."""
    figure = new_figure(2.4 * len(COLUMNS), 2.6 * len(cases))
    grid = figure.subplots(len(cases), len(COLUMNS), squeeze=False)
    tops = [max(float(np.percentile(volumes[index], 99.5)) for _, volumes in cases) for index in (3, 4, 5)]
    heats = (("viridis", 0.0, tops[0]), ("inferno", 0.0, tops[1]), ("RdBu_r", 2 - tops[2], tops[2]))
    for row, (subject, volumes) in zip(grid, cases, strict=True):
        at = riskiest_slices(volumes[4], volumes[1].astype(np.uint8))[0]
        image, label, source, *rest = (upright(volume, 0, at) for volume in volumes)
        for axes in row:
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        for axes, classes in ((row[1], label), (row[2], source)):
            axes.imshow(
                np.ma.masked_equal(classes, 0), cmap="tab10", vmin=0, vmax=9, alpha=0.6, interpolation="nearest"
            )
        for axes, plane, (colours, low, high) in zip(row[3:], rest, heats, strict=True):
            shown = axes.imshow(plane, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            figure.colorbar(shown, ax=axes, shrink=0.7)
        for axes in row[2:]:
            axes.contour(label > 0, levels=[0.5], colors="lime", linewidths=0.7)
        row[0].set_ylabel(subject, fontsize=8)
    for axes, title in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(title, fontsize=8)
    return figure


def report(methods: Sequence[str]) -> None:
    """Prints the results of phase 1 and the Dice of all runs."""
    summary = json.loads(run_of("riskft").risk.summary.read_text())
    print(f"LEEP {summary['leep']:.4f}, H(Y) {summary['label_entropy']:.4f}, knowledge {summary['knowledge']:.3f}")
    print("mean hardness by class:", [round(value, 3) for value in summary["class_hardness"]])
    for method in methods:
        scores = read_cases(run_of(method).cases, "dice")
        for name in dict.fromkeys(name for _, name in scores):
            dice = [value for (_, other), value in scores.items() if other == name and not np.isnan(value)]
            print(f"{method:8s} {name:10s} n {len(dice)}: Dice {100 * np.mean(dice):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Grey- and white-matter network to hippocampus.")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--train", type=int, default=8, help="training cases")
    parser.add_argument("--tests", type=int, default=12, help="test cases")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--methods", nargs="+", default=["riskft", "vanilla", "scratch"], help="riskft first")
    options = parser.parse_args()
    source = options.data_root.resolve() / "pretrained_meshnet/model5_gw_ae.json"
    os.chdir(ROOT)
    manifest = write_manifest(options.data_root.resolve(), options.tests)
    for method in options.methods:
        riskft(["fit", *arguments(method, source, options, manifest)])
        riskft(["test", "--config", str(run_of(method).config)])
    with run_of("riskft").risk.manifest.open() as stream:
        mapped = sorted(json.load(stream)["training data and preprocessing"])[:SUBJECTS]
    cases = [(subject, read_maps(subject, source)) for subject in mapped]
    save_figure(map_figure(cases), RUNS / "risk_maps.png")
    report(options.methods)
    print(f"Figure: {RUNS / 'risk_maps.png'}")


if __name__ == "__main__":
    main()
