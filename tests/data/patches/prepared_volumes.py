"""Prepared volumes on disk, with maps and with labels that are hard to sample."""

from pathlib import Path

import nibabel as nib
import numpy as np

from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case

AFFINE = np.diag([1.0, 1.2, 1.5, 1.0])
SHAPES = (12, 11, 10), (9, 14, 8), (16, 10, 12), (8, 8, 8), (6, 5, 9)


def write_prepared(folder: Path, **volumes) -> PreparedCase:
    """Writes the volumes of a case, by name."""
    folder.mkdir(parents=True)
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, volumes.get("affine", AFFINE)), folder / f"{name}.nii")
    case = Case(subject=folder.name, images={"t1": folder / "image.nii"}, label=folder / "label.nii")
    return PreparedCase(case=case, key=folder.name, folder=folder, foreground_fraction=0.25)


def write_cohort(folder: Path) -> tuple[list[PreparedCase], dict[str, Path]]:
    """Returns cases whose image says where a voxel is, 10000 x + 100 y + z, and their risk maps."""
    cases = []
    for number, shape in enumerate(SHAPES):
        x, y, z = np.indices(shape)
        label = np.zeros(shape, np.uint8)
        if number != 3:  # case 3 has no foreground
            label[(x + 2 * y + z) % 7 == number] = 1
            label[(x * y + z) % 11 == 3] = 2
        if number == 1:
            label[:, :2] = 255
        if number == 2:  # the second class only at the border
            label[label == 2] = 0
            label[0, 0, :3] = 2
        image = (10000 * x + 100 * y + z + 0.25).astype(np.float32)
        weight = (1 + ((3 * x + 5 * y + 7 * z) % 13) / 8).astype(np.float32)
        cases.append(write_prepared(folder / f"p{number}", image=image, label=label, weight=weight, mask=label * 0 + 1))
    return cases, {case.subject: case.folder / "weight.nii" for case in cases}
