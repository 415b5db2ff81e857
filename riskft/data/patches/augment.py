"""Augmentation that moves the risk map and the EEP with the image and never changes their values otherwise."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

import numpy as np
import torch
import torchio as tio
from torch import Tensor
from torchio.transforms.augmentation.composition import Compose, OneOf
from torchio.transforms.spatial_transform import SpatialTransform

from riskft.data.patches.warp import Grid

WEIGHT = "weight"
EEP = "eep"
_MAPS = (WEIGHT, EEP)


_SPATIAL = (tio.RandomFlip, tio.RandomAffine, tio.RandomElasticDeformation)
_LOCAL = (tio.RandomGamma, tio.RandomNoise, tio.RandomBiasField)


def works_on_patches(augment: Sequence[tio.Transform]) -> bool:
    """Whether a patch of the transformed volume can be computed from a part of the volume.

    The transforms must be known here, apply to every image (the maps may be excluded), and interpolate linearly
    (labels: nearest). No spatial one may follow an intensity transform, and only flips may follow an elastic one.
    """
    elastic = local = False
    for transform in _parts(augment):
        spatial = type(transform) in _SPATIAL
        usual = getattr(transform, "image_interpolation", "linear") == "linear"
        usual &= getattr(transform, "label_interpolation", "nearest") == "nearest"
        usual &= getattr(transform, "default_pad_value", 0) not in ("mean", "otsu")
        own = transform.include, transform.keep, transform.label_keys
        whole = any(each is not None for each in own) or not set(transform.exclude or ()) <= set(_MAPS)
        late = local or (elastic and not isinstance(transform, tio.RandomFlip))
        if not (spatial or type(transform) in _LOCAL) or not usual or whole or (spatial and late):
            return False
        local |= not spatial
        elastic |= isinstance(transform, tio.RandomElasticDeformation)
    return True


def drawn(augment: tio.Transform, grid: Grid, channels: int) -> tuple[list[tio.Transform], list[tio.Transform]]:
    """Draws which transforms apply and with which parameters; returns the spatial and the other ones, in order.

    TorchIO draws them, for a volume of 2 x 2 x 2 voxels with the extent of the given one.
    """
    affine = grid.affine @ np.diag([*np.array(grid.shape) / 2, 1])
    subject = tio.Subject(image=tio.ScalarImage(tensor=torch.zeros(channels, 2, 2, 2), affine=affine))
    applied = augment(subject).get_applied_transforms()
    spatial = [isinstance(transform, SpatialTransform) for transform in applied]
    return list(compress(applied, spatial)), [each for each, moves in zip(applied, spatial, strict=True) if not moves]


def with_intensities(image: Tensor, transforms: Sequence[tio.Transform], start: Sequence[int], grid: Grid) -> Tensor:
    """Applies intensity transforms from ``drawn`` to a patch's image, (C, X, Y, Z), whose first voxel is ``start``."""
    for transform in transforms:
        if isinstance(transform, tio.BiasField):
            image = image * _bias_field(transform, image.shape[1:], start, grid)
        else:
            subject = tio.Subject(image=tio.ScalarImage(tensor=image))
            image = transform.apply_transform(subject)["image"].data
    return image


def _bias_field(transform: tio.BiasField, size: Sequence[int], start: Sequence[int], grid: Grid) -> Tensor:
    """Returns the part of TorchIO's bias field that lies in a patch, (X, Y, Z) float32."""
    order, given = transform.order["image"], iter(transform.coefficients["image"])
    field = torch.zeros((order + 1,) * 3, dtype=torch.float64)
    for i, j, k in itertools.product(range(order + 1), repeat=3):
        if i + j + k <= order:
            field[i, j, k] = next(given)
    for first, count, edge in zip(start, size, grid.shape, strict=True):  # each axis from -1 to 1 in the volume
        middle = (edge - 1) / 2
        place = (torch.arange(first, first + count, dtype=torch.float64) - middle) / (middle or 1)
        powers = place[:, None] ** torch.arange(order + 1)
        field = torch.tensordot(field, powers, dims=([0], [1]))
    return field.exp().float()


def _parts(transforms: Iterable[tio.Transform]) -> Iterator[tio.Transform]:
    for transform in transforms:
        if type(transform) is Compose:
            yield from _parts(transform.transforms)
        elif type(transform) is OneOf:
            yield from _parts(transform.transforms_dict)
        else:
            yield transform


def training_transform(augment: Sequence[tio.Transform], patch_size: Sequence[int]) -> tio.Transform:
    """Returns the transform of a whole training volume: padding to the patch size, then augmentation.

    The risk map (and the EEP, where the loss needs it) travels as a scalar image, which spatial transforms warp
    linearly like the image; it is excluded from all other transforms. (Intensity transforms would also skip an image
    of another type, but spatial ones would warp it with nearest-neighbour interpolation.)

    Args:
        augment: TorchIO transforms from the config; the maps are added to their ``exclude`` in place.
        patch_size: Smallest size of a volume, voxels along x, y, z.
    """
    for transform in augment:
        leave_risk_alone(transform)
    return tio.Compose([PadToPatch(patch_size), *augment])


class PadToPatch(SpatialTransform):  # type: ignore[misc]
    """Pads a volume that is smaller than a patch: with 0, and the risk map with the neutral weight 1.

    An EEP of 0 for all classes says that there is none, see ``riskft.DistilledLoss``.

    Args:
        patch_size: Smallest size of the volume, voxels along x, y, z.
    """

    values = {WEIGHT: 1}  # noqa: RUF012
    """The value of an image beyond its border, if it is not 0."""

    def __init__(self, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.args_names = ["patch_size"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Pads every image of the subject alike, evenly on both sides."""
        missing = [max(0, size - own) for size, own in zip(self.patch_size, subject.spatial_shape, strict=True)]
        if any(missing):
            bounds = [part for total in missing for part in (total // 2, total - total // 2)]
            for name, image in subject.get_images_dict(intensity_only=False).items():
                padded = tio.Pad(bounds, padding_mode=self.values.get(name, 0))(image)
                image.set_data(padded.data)
                image.affine = padded.affine
        return subject


def leave_risk_alone(transform: tio.Transform) -> None:
    """Excludes the risk map and the EEP from a transform, or from all of a composition's, unless it is spatial."""
    if isinstance(transform, Compose):
        for part in transform.transforms:
            leave_risk_alone(part)
    elif isinstance(transform, OneOf):
        for part in transform.transforms_dict:
            leave_risk_alone(part)
    elif not isinstance(transform, SpatialTransform) and transform.include is None:
        transform.exclude = [*(transform.exclude or []), *_MAPS]
