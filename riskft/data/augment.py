"""Augmentation that moves the risk map with the image and never changes its values otherwise."""

from collections.abc import Sequence

import torchio as tio
from torchio.transforms.augmentation.composition import Compose, OneOf
from torchio.transforms.spatial_transform import SpatialTransform

RISK = "risk"


def training_transform(augment: Sequence[tio.Transform], patch_size: Sequence[int]) -> tio.Transform:
    """Returns the transform of a whole training volume: padding up to the patch, then the augmentation.

    The risk map travels as a scalar image, which spatial transforms warp linearly as they do the image; every other
    transform is told to leave it alone. (An image of another type would be spared by intensity transforms too, but
    warped with nearest-neighbour interpolation.)

    Args:
        augment: TorchIO transforms from the config. They are changed in place: their ``exclude`` lists the map.
        patch_size: Voxels along x, y, z that a volume must at least have.
    """
    for transform in augment:
        leave_risk_alone(transform)
    return tio.Compose([tio.CropOrPad(tuple(patch_size), only_pad=True), *augment])


def leave_risk_alone(transform: tio.Transform) -> None:
    """Excludes the risk map from a transform, or from all of a composition's, unless it is spatial."""
    if isinstance(transform, Compose):
        for part in transform.transforms:
            leave_risk_alone(part)
    elif isinstance(transform, OneOf):
        for part in transform.transforms_dict:
            leave_risk_alone(part)
    elif not isinstance(transform, SpatialTransform) and transform.include is None:
        transform.exclude = [*(transform.exclude or []), RISK]
