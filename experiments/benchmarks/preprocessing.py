"""Preprocessing of a case, from compressed files to the cache, against TorchIO's transforms alone, on one core.

Usage: ``python experiments/benchmarks/preprocessing.py [--out FOLDER] [--smoke]``. A skull-stripped head of four
modalities, 240 x 240 x 155 voxels. Both read the files. riskft also finds the background, checks values and geometry,
and writes the cache; TorchIO leaves its result in memory.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import paired
import SimpleITK as sitk  # noqa: N813
import torchio as tio

from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case

MODALITIES = ("t1", "t1ce", "t2", "flair")
LABELS = LabelMap({"core": [1, 4], "oedema": [2]})


def make_case(folder: Path, shape: tuple[int, int, int], dtype: type) -> Case:
    """Writes a case whose grey values are noise around those of four tissues."""
    generator = np.random.default_rng(0)
    x, y, z = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    radius = np.sqrt((x / 0.62) ** 2 + (y / 0.75) ** 2 + (z / 0.9) ** 2)
    tissue = np.digitize(radius, (0.3, 0.6, 0.8))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    volumes = {
        name: ((200 + 150 * (tissue * step % 4) + generator.normal(0, 25, shape)).clip(1) * (radius < 1)).astype(dtype)
        for step, name in enumerate(MODALITIES, start=1)
    }
    volumes["label"] = np.select([radius < 0.2, radius < 0.3, radius < 0.4], [1, 4, 2], 0).astype(np.uint8)
    paths = {name: folder / f"{name}_{np.dtype(dtype)}.nii.gz" for name in volumes}
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, affine), paths[name])
    label = paths.pop("label")
    return Case("case", paths, label)


def with_riskft(case: Case, folder: Path, options: Preprocessing) -> None:
    """Prepares a case in a new cache."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        PreparedCache(Path(cache), LABELS, options).prepare([case])


def with_torchio(case: Case, options: Preprocessing) -> None:
    """Reads a case, and orients, resamples and standardises it."""
    subject = tio.Subject(image=tio.ScalarImage(list(case.images.values())), label=tio.LabelMap(case.label))
    resample = [] if options.spacing is None else [tio.Resample(options.spacing)]
    normalise = tio.ZNormalization(masking_method=lambda image: image > 0)
    found = tio.Compose([tio.ToCanonical(), *resample, normalise])(subject)
    found["image"].load()
    found["label"].load()


def rows(options: argparse.Namespace) -> Iterator[paired.Row]:
    """Yields the table."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    shape, rounds = ((48, 48, 31), 1) if options.smoke else ((240, 240, 155), 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for dtype, spacings in ((np.float32, (None, (1.2, 1.2, 1.2))), (np.int16, (None,))):
            case = make_case(folder, shape, dtype)
            for spacing in spacings:
                chosen = Preprocessing(spacing=spacing)
                yield paired.paired(
                    f"preprocessing {' x '.join(map(str, shape))} x {len(MODALITIES)}, {np.dtype(dtype)}, "
                    f"{'own spacing' if spacing is None else 'resampled to 1.2 mm'}, written to the cache",
                    "TorchIO's transforms alone, in memory",
                    lambda case=case, chosen=chosen: with_riskft(case, folder, chosen),
                    lambda case=case, chosen=chosen: with_torchio(case, chosen),
                    aim=1.1,
                    rounds=rounds,
                )


if __name__ == "__main__":
    paired.main("preprocessing", rows)
