"""Augmentation that moves the risk map and the EEP with the image and never changes their values otherwise."""

from collections.abc import Sequence

import torchio as tio
from torchio.transforms.augmentation.composition import Compose, OneOf
from torchio.transforms.spatial_transform import SpatialTransform

WEIGHT = "weight"
EEP = "eep"
_MAPS = (WEIGHT, EEP)


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
                padded = tio.Pad(bounds, padding_mode=1 if name == WEIGHT else 0)(image)
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
