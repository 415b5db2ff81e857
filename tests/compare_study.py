"""Run folders that tests write: scores, curves, panels and risk maps."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from riskft.data.io.volumes import write_nifti
from riskft.run.folder import RunFolder
from riskft.run.risk import StoreFiles

CLASSES = ("shell", "core")


def write_run(folder, study="s", method="vanilla", seed=0, scores=None, metric="dice", classes=CLASSES):
    """Writes config.yaml and cases.csv; ``scores`` by (subject, class)."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"seed_everything: {seed}\nrun:\n  study: {study}\n  method: {method}\n"
        f"data:\n  labels:\n    classes: {json.dumps({name: [i + 1] for i, name in enumerate(classes)})}\n"
    )
    if scores is None:
        return folder
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["subject", "class_name", "dice", "hd95_mm", "voxels_true", "voxels_predicted"])
        for (subject, name), value in scores.items():
            pair = [value, math.nan] if metric == "dice" else [math.nan, value]
            writer.writerow([subject, name, *pair, 10, 10])
    return folder


def write_maps(folder, cache, affine, shape=(14, 11, 9), subjects=("v1", "t1")):
    """Writes risk maps of a validation and a training case into a cache, and what the run says of them."""
    store = StoreFiles(cache / "risk" / "inputs" / "options")
    keys = {subject: f"key-{subject}" for subject in subjects}
    for number, subject in enumerate(subjects):
        label = np.zeros(shape, np.uint8)
        label[3:7, 4:8, 2:6] = 1
        label[4:6, 5:7, 3:5] = 2
        hardness = np.where(label > 0, 2.0 + number, 0.1).astype(np.float32)
        image = np.arange(label.size, dtype=np.float32).reshape(shape)
        case = cache / "cases" / keys[subject]
        write_nifti(case / "image.nii", image[..., None], affine)
        write_nifti(case / "label.nii", label, affine)
        write_nifti(store.hardness_path(subject), hardness, affine)
        write_nifti(store.weight_path(subject), 1 + hardness / 10, affine)
    risk = RunFolder(folder).risk
    risk.path.mkdir()
    risk.summary.write_text(json.dumps({"maps": str(store.weights_folder)}))
    manifest = {
        "validation data": {subjects[0]: keys[subjects[0]]},
        "training data and preprocessing": {subjects[1]: keys[subjects[1]]},
    }
    risk.manifest.write_text(json.dumps(manifest))


def write_panel(folder: Path, name: str, grey: int = 100) -> Path:
    """Writes a small PNG."""
    path = folder / "heatmaps" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (30, 20), grey).save(path)
    return path


def in_ras(array, affine):
    """Turns an array to RAS by nibabel's own image class, an oracle for the viewer's."""
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(array, affine)).dataobj)
