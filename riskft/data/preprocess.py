"""Deterministic preprocessing of one case: pure functions from files to tensors."""

from dataclasses import dataclass

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.data.volumes import Affine, read_volume
from riskft.errors import InputError


@dataclass(frozen=True)
class Preprocessing:
    """Options of the deterministic part of the preprocessing.

    In this order: canonical (RAS+) orientation, resampling (linear; labels nearest), cropping to the head, z-score
    per channel inside the head mask, see ``head_mask``.

    Args:
        spacing: Voxel size in mm (x, y, z after canonical orientation), or None to keep each case's own.
        crop: Crop to the bounding box of the head mask.
        margin: Voxels left around the head.
        zscore: Subtract the mean and divide by the standard deviation of the head's voxels; the rest becomes 0.
    """

    spacing: tuple[float, float, float] | None = None
    crop: bool = True
    margin: int = 2
    zscore: bool = True

    def __post_init__(self) -> None:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise InputError(
                f"data.preprocessing.spacing is {list(self.spacing)}, expected three lengths in mm above 0."
            )
        if self.margin < 0:
            raise InputError(f"data.preprocessing.margin is {self.margin}, expected 0 voxels or more.")


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
    arrays, affines = zip(*(read_volume(path) for path in case.images.values()), strict=True)
    affine = affines[0]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"{case.subject}: modalities have shapes {[array.shape for array in arrays]}, expected one.")
    image = torch.from_numpy(np.stack(arrays).astype(np.float32))
    broken = [name for name, channel in zip(case.images, image, strict=True) if not channel.isfinite().all()]
    if broken:  # would make the whole head empty, and the image zero, without a word
        raise InputError(f"{case.subject}: {', '.join(broken)} has NaN or infinite voxels. Repair or drop the case.")
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
    subject = tio.ToCanonical()(subject)
    if options.spacing is not None:
        subject = _resampled(subject, options.spacing)
    if options.crop:
        subject = tio.Crop(_margins(subject["inside"].data.bool().any(0), options.margin))(subject)
    image, inside = subject["image"].data.float(), subject["inside"].data.bool()
    return Volumes(
        image=zscore(image, inside) if options.zscore else image,
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


def zscore(image: Tensor, inside: Tensor) -> Tensor:
    """Standardises each channel of (C, *spatial) by its voxels inside (C, *spatial) bool; the others become 0."""
    result = torch.zeros_like(image)
    for channel, mask in enumerate(inside):
        values = image[channel][mask].double()
        if values.numel() > 1:
            spread = values.std().clamp_min(1e-8)
            result[channel][mask] = ((values - values.mean()) / spread).float()
    return result


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
