"""Times how training patches are made: loading, sampling, augmenting, cropping and collating, in one process.

    python experiments/benchmarks/patches.py [--out FOLDER] [--smoke]

Each call serves the patches of one epoch of prepared volumes. TorchIO's queue gets the same files, transforms and
sampling, but no risk map. MONAI keeps its volumes in memory, and gets transforms of the same kind, strength and
probability, which it applies to patches.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import peers
import torch
import torchio as tio
from monai.data import CacheDataset, DataLoader, list_data_collate
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
)
from paired import Row, main, paired, row, seconds
from scipy.ndimage import gaussian_filter

from riskft.data.patches.queue import PatchLoader
from riskft.data.patches.sampling import BalancedSampling
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.patches.volumes import training_patches
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case

CLASSES, PER_VOLUME, BATCH, QUEUE = 3, 4, 2, 64
EPOCHS = 4  # in each pair against nnU-Net


def cohort(folder: Path, count: int, shape: Sequence[int]) -> tuple[list[PreparedCase], dict[str, Path]]:
    """Writes prepared cases with a background of zeros and two structures, and a risk map for each."""
    cases, weights = [], {}
    for number in range(count):
        rng = np.random.default_rng(number)
        field = gaussian_filter(rng.normal(size=shape), 6)
        label = (field > np.quantile(field, 0.93)).astype(np.uint8) + (field > np.quantile(field, 0.98))
        image = np.where(field > np.quantile(field, 0.4), rng.normal(size=shape) + label, 0).astype(np.float32)
        weight = (0.5 + rng.random(shape)).astype(np.float32)
        place = folder / f"case{number}"
        place.mkdir()
        for name, volume in (("image", image), ("label", label.astype(np.uint8)), ("weight", weight)):
            nib.save(nib.Nifti1Image(volume, np.eye(4)), place / f"{name}.nii")
        case = Case(f"case{number}", {"t1": place / "image.nii"}, place / "label.nii")
        cases.append(PreparedCase(case, str(number), place, foreground_fraction=0.07))
        weights[case.subject] = place / "weight.nii"
    return cases, weights


def augmentation() -> list[tio.Transform]:
    """Returns the transforms of configs/data/augment.yaml."""
    return [
        tio.RandomFlip(axes=[0]),
        tio.RandomAffine(scales=0.1, degrees=10, translation=4, p=0.5),
        tio.RandomElasticDeformation(num_control_points=7, max_displacement=5, p=0.1),
        tio.RandomGamma(log_gamma=0.3, p=0.3),
        tio.RandomBiasField(coefficients=0.3, p=0.2),
        tio.RandomNoise(std=0.1, p=0.3),
    ]


def walk(loader: object) -> None:
    """Iterates over all batches."""
    for _ in loader:  # type: ignore[attr-defined]
        pass


def riskft_epoch(
    cases: Sequence[PreparedCase],
    weights: dict[str, Path] | None,
    augment: Sequence[tio.Transform],
    patch: Sequence[int],
) -> Callable[[], None]:
    """Returns a function that serves an epoch with riskft."""
    source = training_patches(cases, TrainingMaps(weights), augment, patch, BalancedSampling(), CLASSES, PER_VOLUME)
    return partial(walk, PatchLoader(source, BATCH, QUEUE))


def torchio_epoch(
    cases: Sequence[PreparedCase], augment: Sequence[tio.Transform], patch: Sequence[int]
) -> Callable[[], None]:
    """Returns a function that serves an epoch with TorchIO, without a risk map."""
    subjects = [
        tio.Subject(image=tio.ScalarImage(case.folder / "image.nii"), label=tio.LabelMap(case.folder / "label.nii"))
        for case in cases
    ]
    sampler = tio.LabelSampler(patch, "label", {0: 0.33, 1: 0.335, 2: 0.335})
    data = tio.SubjectsDataset(subjects, transform=tio.Compose(augment) if augment else None)
    queue = tio.Queue(data, min(QUEUE, PER_VOLUME * len(cases)), PER_VOLUME, sampler, start_background=False)
    return partial(walk, tio.SubjectsLoader(queue, batch_size=BATCH))


def monai_epoch(cases: Sequence[PreparedCase], patch: Sequence[int]) -> Callable[[], None]:
    """Returns a function that serves an epoch with MONAI, from memory, augmented and without a risk map."""
    keys, modes = ["image", "label"], ["bilinear", "nearest"]
    degrees, elastic = np.deg2rad(10), {"sigma_range": (5, 7), "magnitude_range": (50, 150)}
    transform = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            RandCropByPosNegLabeld(keys, "label", patch, pos=2, neg=1, num_samples=PER_VOLUME),
            RandFlipd(keys, prob=0.5, spatial_axis=0),
            RandAffined(
                keys, prob=0.5, rotate_range=[degrees] * 3, scale_range=[0.1] * 3, translate_range=[4] * 3, mode=modes
            ),
            Rand3DElasticd(keys, prob=0.1, mode=modes, **elastic),
            RandAdjustContrastd(["image"], prob=0.3, gamma=(0.74, 1.35)),
            RandBiasFieldd(["image"], prob=0.2, coeff_range=(0.0, 0.3)),
            RandGaussianNoised(["image"], prob=0.3, std=0.1),
        ]
    )
    files = [{"image": str(case.folder / "image.nii"), "label": str(case.folder / "label.nii")} for case in cases]
    data = CacheDataset(files, transform, progress=False)
    batch = max(1, BATCH // PER_VOLUME)  # each item gives PER_VOLUME patches
    return partial(walk, DataLoader(data, batch_size=batch, shuffle=True, collate_fn=list_data_collate))


def beside_nnunet(what: str, ours: Callable[[], None], folder: Path, patch: Sequence[int], rounds: int) -> Row | None:
    """Returns the row against nnU-Net's augmentation, or None if the peers are not installed (see peers.py)."""
    if (python := peers.python()) is None:
        return None
    command = [python, Path(__file__).with_name("peer_patches.py"), folder, str(patch[0]), str(PER_VOLUME)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    times = []
    with subprocess.Popen(command, env=peers.environment(), **pipes) as process:
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        for _ in range(EPOCHS * (rounds + 1)):
            own = seconds(ours)
            process.stdin.write("\n")
            times.append((own, float(process.stdout.readline())))
    # several epochs per pair, because few patches draw the costly transforms
    times = [tuple(map(sum, zip(*times[at : at + EPOCHS], strict=True))) for at in range(0, len(times), EPOCHS)]
    return row(what, "batchgeneratorsv2, nnU-Net's defaults", "s CPU", *zip(*times[1:], strict=True), aim=1.0)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    """Yields the rows of the table."""
    count, shape, patch, rounds = (
        (2, (48, 44, 40), (24,) * 3, 1) if options.smoke else (5, (128, 144, 112), (64,) * 3, 5)
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        cases, weights = cohort(Path(folder), count, shape)
        names = {"": None, " with risk": weights}
        for name, maps in names.items():
            ours = riskft_epoch(cases, maps, (), patch)
            aim = 1.02 if maps is None else 1.10
            yield paired(
                f"an epoch's patches{name}",
                "TorchIO Queue without risk",
                ours,
                torchio_epoch(cases, (), patch),
                aim=aim,
                rounds=rounds,
            )
        for name, maps in names.items():
            ours = riskft_epoch(cases, maps, augmentation(), patch)
            aim = 1.02 if maps is None else 1.10
            peer = torchio_epoch(cases, augmentation(), patch)
            yield paired(
                f"an epoch's augmented patches{name}",
                "TorchIO Queue without risk",
                ours,
                peer,
                aim=aim,
                rounds=max(1, rounds - 2),
            )
        ours = riskft_epoch(cases, weights, augmentation(), patch)
        what = "augmented patches with risk"
        if nnunet := beside_nnunet(f"{EPOCHS * count * PER_VOLUME} {what}", ours, Path(folder), patch, rounds):
            yield nnunet
        what = f"{count * PER_VOLUME} {what}"
        yield paired(
            what, "MONAI CacheDataset, RandCropByPosNegLabel", ours, monai_epoch(cases, patch), aim=1.0, rounds=rounds
        )


if __name__ == "__main__":
    main("patches", rows)
