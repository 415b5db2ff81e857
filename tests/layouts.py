"""Writers of tiny, sound data sets in every layout that riskft reads; tests break them."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tiny_cohort import rotated_affine

SHAPE = (6, 8, 5)
SPACING = (1.2, 1.5, 2.0)
Files = dict[str, Path]


@dataclass
class Layout:
    """A data set on disk, and how riskft is told to read it.

    ``cases`` has the files of each subject: its modalities, and "label"; ``unlabelled`` counts further cases.
    ``made_of`` are the label values that its volumes hold beside 0. ``split`` is the option ``--data.split``.
    """

    reader: str
    arguments: dict[str, Any]
    modalities: list[str]
    made_of: list[int]
    cases: dict[str, Files] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)
    unlabelled: int = 0

    @property
    def options(self) -> list[str]:
        """The command line options of the data."""
        reader = {"class_path": f"riskft.{self.reader}", "init_args": self.arguments}
        classes = {f"class_{value}": [value] for value in self.made_of}
        return [
            *("--data.reader", json.dumps(reader), "--data.modalities", json.dumps(self.modalities)),
            *("--data.labels", json.dumps({"classes": classes}), "--data.split", json.dumps(self.split)),
        ]

    def volumes(self, subject: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Enters a subject; returns noise, another one for each subject and modality, and a label of boxes."""
        seed = len(self.cases)
        self.cases[subject] = {}
        noise = {name: image(10 * seed + k) for k, name in enumerate(self.modalities)}
        label = np.zeros(SHAPE, np.uint8)
        for k, value in enumerate(self.made_of):
            label[1 + k, 2 : 4 + seed % 3, 1:4] = value
        return noise, label


def image(seed: int) -> np.ndarray:
    """Returns noise of shape ``SHAPE``, float32."""
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Writes NIfTI, or Analyze where the ending is ``.hdr``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".hdr":
        nib.save(nib.AnalyzeImage(data, np.diag([-SPACING[0], *SPACING[1:], 1])), path)
    else:
        nib.save(nib.Nifti1Image(data, rotated_affine(SPACING) if affine is None else affine), path)
    return path


def list_split(subjects: Sequence[str]) -> dict[str, Any]:
    """Splits: the last subject is for test, the one before for validation."""
    *train, val, test = subjects
    return {"class_path": "riskft.ListSplit", "init_args": {"train": train, "val": [val], "test": [test]}}


def fets(root: Path, count: int) -> Layout:
    layout = Layout("FetsReader", {"root": str(root)}, ["t1", "flair"], [1, 2, 4])
    for number in range(count):
        # the one before the last three is named like a validation case, which may lack its label
        kind = "Validation" if number == count - 4 else "Training"
        _folders(layout, root, f"FeTS21_{kind}_{number:03d}", {"t1": "_t1", "flair": "_flair", "label": "_seg"})
    layout.split = list_split([*layout.cases])
    return layout


def brats2023(root: Path, count: int) -> Layout:
    root = root / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
    layout = Layout("Brats2023Reader", {"root": str(root)}, ["t1ce", "flair"], [1, 2, 3])
    for number in range(count):
        _folders(layout, root, f"BraTS-GLI-{number:05d}-000", {"t1ce": "-t1c", "flair": "-t2f", "label": "-seg"})
    layout.split = list_split([*layout.cases])
    return layout


def _folders(layout: Layout, root: Path, subject: str, suffixes: dict[str, str]) -> None:
    images, label = layout.volumes(subject)
    for name, data in {**images, "label": label}.items():
        path = root / subject / f"{subject}{suffixes[name]}.nii.gz"
        layout.cases[subject][name] = save(path, data)


def iseg(root: Path, count: int) -> Layout:
    root = root / "iSeg-2019-Training"
    layout = Layout("IsegReader", {"root": str(root)}, ["t1", "t2"], [10, 150, 250])
    for number in range(1, count + 1):
        images, label = layout.volumes(f"subject-{number}")
        for name, data in {**images, "label": label}.items():
            kind = name if name == "label" else name.upper()
            path = root / f"subject-{number}-{kind}.hdr"
            layout.cases[f"subject-{number}"][name] = save(path, data[..., None].astype(np.float32))
    layout.split = list_split([*layout.cases])
    return layout


def manifest(root: Path, count: int) -> Layout:
    layout = Layout("ManifestReader", {"csv": str(root / "cases.csv")}, ["t2", "dwi"], [1])
    rows = []
    for number in range(count):
        subject = f"p{number:02d}"
        images, label = layout.volumes(subject)
        files = {name: save(root / f"{subject} {name}.nii", data) for name, data in {**images, "label": label}.items()}
        layout.cases[subject] = files
        split = {count - 1: "test", count - 2: "val"}.get(number, "train")
        rows.append([subject, split, *(path.name for path in files.values())])
    with (root / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["subject", "split", *layout.modalities, "label"], *rows])
    layout.split = {"class_path": "riskft.ReaderSplit"}
    return layout


def msd(root: Path, count: int) -> Layout:
    """Three channels in one file, of which two are asked for, not in their order; one test image."""
    layout = Layout("MsdReader", {"root": str(root)}, ["t1gd", "FLAIR"], [1, 2, 3])
    training = []
    for number in range(count):
        subject = f"BRATS_{number:03d}"
        images, label = layout.volumes(subject)
        stack = np.stack([images["FLAIR"], image(1000 + number), images["t1gd"]], axis=-1)
        path = save(root / "imagesTr" / f"{subject}.nii.gz", stack)
        truth = save(root / "labelsTr" / f"{subject}.nii.gz", label)
        layout.cases[subject] = {"t1gd": path, "FLAIR": path, "label": truth}
        training.append({folder: f"./{folder}sTr/{subject}.nii.gz" for folder in ("image", "label")})
    layout.unlabelled = 1
    test = save(root / "imagesTs" / "BRATS_999.nii.gz", np.stack([image(2000 + k) for k in range(3)], axis=-1))
    description = {
        "name": "BRATS",
        "tensorImageSize": "4D",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "numTraining": count,
        "numTest": 1,
        "training": training,
        "test": [f"./imagesTs/{test.name}"],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    layout.split = list_split([*layout.cases])
    return layout


def nnunet(root: Path, count: int) -> Layout:
    """Folds in ``nnUNet_preprocessed``; the last subject is in ``imagesTs`` with a label."""
    raw, prepared = root / "nnUNet_raw/Dataset777_Tiny", root / "nnUNet_preprocessed/Dataset777_Tiny"
    layout = Layout("NnunetReader", {"root": str(raw), "fold": 1, "splits": str(prepared)}, ["t1", "flair"], [1, 2])
    for number in range(count):
        subject = f"tiny_{number:03d}"
        images, label = layout.volumes(subject)
        part = "Ts" if number == count - 1 else "Tr"
        for name, data in images.items():
            channel = layout.modalities.index(name)
            path = raw / f"images{part}" / f"{subject}_{channel:04d}.nii.gz"
            layout.cases[subject][name] = save(path, data)
        layout.cases[subject]["label"] = save(raw / f"labels{part}" / f"{subject}.nii.gz", label)
    description = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "core": 1, "rim": 2},
        "numTraining": count - 1,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    *train, val, _ = layout.cases
    folds = [{"train": [val], "val": train}, {"train": train, "val": [val]}]
    prepared.mkdir(parents=True)
    (prepared / "splits_final.json").write_text(json.dumps(folds))
    layout.split = {"class_path": "riskft.ReaderSplit"}
    return layout


def bids(root: Path, count: int) -> Layout:
    """Every second subject has two sessions, of which one is asked for."""
    arguments = {"root": str(root), "derivatives": "lesions", "entities": {"acq": "iso"}}
    layout = Layout("BidsReader", arguments, ["t1w", "FLAIR"], [1])
    for number in range(count):
        unit = Path(f"sub-{number:02d}", *(["ses-a"] if number % 2 else []))
        subject = "_".join(unit.parts)
        images, label = layout.volumes(subject)
        folder = root / unit / "anat"
        layout.cases[subject] = {
            "t1w": save(folder / f"{subject}_acq-iso_T1w.nii.gz", images["t1w"]),
            "FLAIR": save(folder / f"{subject}_FLAIR.nii.gz", images["FLAIR"]),
            "label": save(root / "derivatives/lesions" / unit / "anat" / f"{subject}_space-orig_dseg.nii.gz", label),
        }
        save(folder / f"{subject}_acq-thick_T1w.nii.gz", image(3000 + number))
        save(root / "derivatives/other" / unit / "anat" / f"{subject}_dseg.nii.gz", label)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "tiny", "BIDSVersion": "1.9.0"}))
    layout.split = list_split([*layout.cases])
    return layout


WRITERS: dict[str, Callable[[Path, int], Layout]] = {
    "fets": fets,
    "brats2023": brats2023,
    "iseg": iseg,
    "manifest": manifest,
    "msd": msd,
    "nnunet": nnunet,
    "bids": bids,
}
