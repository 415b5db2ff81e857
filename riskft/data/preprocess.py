"""Deterministic preprocessing of one case: pure functions from files to tensors."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from riskft.data.intensity import Intensity, ZScore
from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.data.volumes import Affine, read_volume
from riskft.errors import InputError

_AXES = ("RL", "AP", "SI")


@dataclass(frozen=True)
class Preprocessing:
    """Options of the deterministic part of the preprocessing.

    In this order: orientation, resampling (linear; labels nearest), cropping to the head, intensities. The head mask,
    see ``head_mask``, is made of the grey values as they are in the file.

    Args:
        spacing: Voxel size in mm along the axes of the orientation, or None to keep each case's own.
        crop: Crop to the bounding box of the head mask.
        margin: Voxels left around the head.
        orientation: Where the axes shall point, for example RAS (x to the right, y to anterior, z to superior), or
            None to keep each file's own. A source network that was trained on other axes needs those: ``LIA``, say.
        intensity: What is done to the grey values; None leaves them alone.
    """

    spacing: tuple[float, float, float] | None = None
    crop: bool = True
    margin: int = 2
    orientation: str | None = "RAS"
    intensity: Intensity | None = ZScore()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise InputError(
                f"data.preprocessing.spacing is {list(self.spacing)}, expected three lengths in mm above 0."
            )
        if self.margin < 0:
            raise InputError(f"data.preprocessing.margin is {self.margin}, expected 0 voxels or more.")
        letters = [[letter for letter in self.orientation or "" if letter in pair] for pair in _AXES]
        if self.orientation is not None and (len(self.orientation) != 3 or any(len(found) != 1 for found in letters)):
            raise InputError(
                f"data.preprocessing.orientation is '{self.orientation}', expected three capitals, one of each of "
                f"{', '.join(_AXES)} in any order, such as RAS; or null for the file's own axes."
            )

    def describe(self) -> dict[str, Any]:
        """Returns the options as plain values, for the fingerprint."""
        return {**asdict(self), "intensity": self.intensity.describe() if self.intensity else None}


@dataclass(frozen=True)
class Volumes:
    """One preprocessed case.

    Attributes:
        image: (C, X, Y, Z) float32.
        label: (1, X, Y, Z) uint8 class indices (255: ignored), or None.
        mask: (1, X, Y, Z) bool, where any channel is head.
        affine: Voxel-to-mm, (4, 4).
    """

    image: Tensor
    label: Tensor | None
    mask: Tensor
    affine: Affine


def preprocess(case: Case, labels: LabelMap, options: Preprocessing) -> Volumes:
    """Reads and preprocesses one case.

    Args:
        case: The files.
        labels: Map from raw label values to classes.
        options: What to do.

    Raises:
        InputError: If a file cannot be read or holds NaN, grids disagree, or a label value is in no class.
    """
    read = (read_volume(path, case.channels.get(name)) for name, path in case.images.items())
    arrays, affines = zip(*read, strict=True)
    affine = affines[0]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"{case.subject}: modalities have shapes {[array.shape for array in arrays]}, expected one.")
    image = torch.from_numpy(np.stack(arrays).astype(np.float32))
    broken = [name for name, channel in zip(case.images, image, strict=True) if not channel.isfinite().all()]
    if broken:  # would make the whole head empty, and the image zero, without a word
        files = ", ".join(str(case.images[name]) for name in broken)
        raise InputError(f"{files}: NaN or infinite voxels. Repair the file, or drop the case {case.subject}.")
    inside = torch.stack([head_mask(channel) for channel in image])
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=image, affine=affine),
        inside=tio.LabelMap(tensor=inside.to(torch.uint8), affine=affine),
    )
    if case.label is not None:
        raw, _ = read_volume(case.label)
        if raw.shape != arrays[0].shape:
            raise InputError(f"{case.label}: found shape {raw.shape}, expected {arrays[0].shape} as the image has.")
        try:
            mapped = labels.to_classes(raw)
        except InputError as error:
            raise InputError(f"{case.label}: {error}") from error
        subject.add_image(tio.LabelMap(tensor=torch.from_numpy(mapped)[None], affine=affine), "label")
    if options.orientation is not None:
        subject = tio.ToOrientation(options.orientation)(subject)
    if options.spacing is not None:
        subject = _resampled(subject, options.spacing)
    if options.crop:
        subject = tio.Crop(_margins(subject["inside"].data.bool().any(0), options.margin))(subject)
    image, inside = subject["image"].data.float(), subject["inside"].data.bool()
    return Volumes(
        image=options.intensity(image, inside) if options.intensity is not None else image,
        label=subject["label"].data.to(torch.uint8) if "label" in subject else None,
        mask=inside.any(0, keepdim=True),
        affine=np.asarray(subject["image"].affine, dtype=np.float64),
    )


def head_mask(channel: Tensor) -> Tensor:
    """Returns where a channel (X, Y, Z) is head: bool of the same shape.

    A value that at least one voxel in twenty has is the background of a skull-stripped image, whatever it is (resampled
    images ring below 0 inside the head). Other images have no such value, and are head as a whole.
    """
    background = channel.flatten().mode().values
    outside = channel == background
    return ~outside if outside.float().mean() >= 0.05 else torch.ones_like(outside)


def _resampled(subject: tio.Subject, spacing: tuple[float, float, float]) -> tio.Subject:
    """Resamples; an axis that has its spacing already, to one part in a thousand, keeps its voxels.

    TorchIO rounds the number of voxels down, so that a rounding error in a rotated affine would cost a slice and shift
    the grid by half a voxel.
    """
    same = [abs(own - wanted) <= 1e-3 * wanted for own, wanted in zip(subject.spacing, spacing, strict=True)]
    if all(same):
        return subject
    target = (
        own * (1 - 1e-6) if keep else wanted for own, wanted, keep in zip(subject.spacing, spacing, same, strict=True)
    )
    return tio.Resample(tuple(target))(subject)


def _margins(inside: Tensor, margin: int) -> tuple[int, ...]:
    """Returns how much to crop at the two ends of each axis, flat; nothing where the mask is empty."""
    margins: list[int] = []
    for axis, size in enumerate(inside.shape):
        others = tuple(other for other in range(3) if other != axis)
        occupied = inside.any(dim=others[1]).any(dim=others[0]).nonzero().flatten()
        first, last = (int(occupied[0]), int(occupied[-1])) if occupied.numel() else (0, size - 1)
        margins += [max(0, first - margin), max(0, size - 1 - last - margin)]
    return tuple(margins)
