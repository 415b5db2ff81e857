"""A tiny data set that tests share."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter


def rotated_affine(spacing=(1.2, 1.5, 2.0), degrees=12.0, codes="LAS"):
    """Returns an affine of the given spacing (mm), rotated about z, with the given axis directions."""
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    signs = [1 if code in "RAS" else -1 for code in codes]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(np.array(spacing) * signs)
    affine[:3, 3] = (11.0, -7.0, 23.0)
    return affine


def write_tiny_cohort(folder: Path, subjects: int = 6, shape=(22, 26, 18), inverted: bool = False) -> Path:
    """Writes smooth blobs with a bright core, in two modalities, and a manifest; returns the manifest's path.

    Volumes are non-cubic, anisotropic, rotated and LAS. ``t2`` has the contrast of ``t1`` turned round.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["subject,split,t1,t2,label"]
    splits = ["train"] * (subjects - 3) + ["val", "test", "test"]
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        head = gaussian_filter(rng.normal(size=shape), 2)
        grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
        centre = np.array(shape)[:, None, None, None] / 2 + rng.uniform(-2, 2, size=(3, 1, 1, 1))
        distance = np.sqrt((((grid - centre) / np.array([6, 7, 5]).reshape(3, 1, 1, 1)) ** 2).sum(0)) + head
        label = ((distance < 1).astype(np.uint8) + (distance < 0.5)).astype(np.uint8)
        brain = distance < 1.7
        t1 = brain * (100 + 60.0 * (label >= 1) + 60 * (label == 2) + rng.normal(0, 8, shape)).clip(1)
        t2 = brain * (300 - t1).clip(1)
        name = f"case{number:02d}"
        for modality, array in (("t1", t1), ("t2", t2), ("label", label)):
            dtype = np.uint8 if modality == "label" else np.float32
            image = nib.Nifti1Image(array.astype(dtype), rotated_affine())
            nib.save(image, folder / f"{name}_{modality}.nii.gz")
        rows.append(f"{name},{split},{name}_t1.nii.gz,{name}_t2.nii.gz,{name}_label.nii.gz")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest
