"""The risk map follows the image in space and is left alone otherwise."""

import copy

import pytest
import torch
import torchio as tio
from scipy.ndimage import gaussian_filter

from riskft.data.patches.augment import leave_risk_alone, training_transform

SHAPE = (14, 12, 10)


@pytest.fixture
def subject():
    """A subject whose risk map is a copy of its image."""
    values = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    values = torch.from_numpy(gaussian_filter(values.numpy(), (0, 1, 1, 1))) * 10 + 1
    label = (values > values.median()).to(torch.uint8)
    affine = torch.diag(torch.tensor([1.0, 1.2, 1.5, 1.0])).numpy()
    return tio.Subject(
        image=tio.ScalarImage(tensor=values, affine=affine),
        label=tio.LabelMap(tensor=label, affine=affine),
        weight=tio.ScalarImage(tensor=values.clone(), affine=affine),
    )


INTENSITY = {
    "noise": lambda: tio.RandomNoise(std=(1, 2)),
    "blur": lambda: tio.RandomBlur(std=(1, 2)),
    "gamma": lambda: tio.RandomGamma(log_gamma=(0.3, 0.5)),
    "bias": lambda: tio.RandomBiasField(coefficients=(0.5, 0.9)),
    "spike": lambda: tio.RandomSpike(intensity=(1, 2)),
    "ghosting": lambda: tio.RandomGhosting(intensity=(1, 2)),
    "motion": lambda: tio.RandomMotion(degrees=(10, 20)),
    "swap": lambda: tio.RandomSwap(patch_size=3, num_iterations=20),
    "anisotropy": lambda: tio.RandomAnisotropy(downsampling=(2, 3)),
    "labels_to_image": lambda: tio.RandomLabelsToImage(label_key="label", image_key="image"),
    "rescale": lambda: tio.RescaleIntensity((0, 1)),
    "znormalization": tio.ZNormalization,
    "clamp": lambda: tio.Clamp(3, 5),
    "lambda": lambda: tio.Lambda(lambda tensor: tensor * 2),
    "with_an_exclusion": lambda: tio.RandomNoise(std=(1, 2), exclude=["other"]),
    "included_image": lambda: tio.RandomNoise(std=(1, 2), include=["image"]),
    "one_of": lambda: tio.OneOf([tio.RandomNoise(std=(1, 2)), tio.RandomBlur(std=(1, 2))]),
    "compose": lambda: tio.Compose([tio.RandomNoise(std=(1, 2)), tio.RandomGamma()]),
    "nested": lambda: tio.Compose([tio.OneOf({tio.Compose([tio.RandomBlur(std=(1, 2))]): 1.0}), tio.RandomNoise()]),
}
SPATIAL = {
    "flip": lambda: tio.RandomFlip(axes=(0, 1), flip_probability=1),
    "affine": lambda: tio.RandomAffine(scales=0.2, degrees=20, translation=2),
    "elastic": lambda: tio.RandomElasticDeformation(num_control_points=5, max_displacement=2),
    "affine_elastic": lambda: tio.RandomAffineElasticDeformation(
        affine_kwargs={"degrees": 20}, elastic_kwargs={"num_control_points": 5, "max_displacement": 2}
    ),
    "resample": lambda: tio.Resample(1.3),
    "crop_or_pad": lambda: tio.CropOrPad((10, 16, 10)),
    "one_of": lambda: tio.OneOf([tio.RandomAffine(degrees=20), tio.RandomFlip(axes=0, flip_probability=1)]),
    "compose": lambda: tio.Compose([tio.RandomFlip(flip_probability=1), tio.RandomAffine(degrees=20)]),
}


def patch(transform):
    return training_transform([transform], (4, 4, 4))


@pytest.mark.parametrize("name", INTENSITY)
def test_other_transforms_leave_the_map_alone(subject, name):
    torch.manual_seed(1)
    result = patch(INTENSITY[name]())(subject)
    torch.testing.assert_close(result["weight"].data, subject["weight"].data, rtol=0, atol=0)
    assert not torch.allclose(result["image"].data, subject["image"].data, atol=1e-2)
    assert result["image"].shape == result["weight"].shape == result["label"].shape


@pytest.mark.parametrize("name", SPATIAL)
@pytest.mark.parametrize("seed", [1, 2])
def test_spatial_transforms_move_the_map_as_they_move_the_image(subject, name, seed):
    torch.manual_seed(seed)
    result = patch(SPATIAL[name]())(subject)
    torch.testing.assert_close(result["weight"].data, result["image"].data)
    assert (result["weight"].affine == result["image"].affine).all()
    moved = result["image"].data
    assert moved.shape != subject["image"].data.shape or not torch.allclose(moved, subject["image"].data, atol=1e-2)
    # linear, not nearest: values between those of the map
    if name in ("affine", "elastic", "affine_elastic", "resample"):
        assert not torch.isin(moved, subject["weight"].data).float().mean() > 0.9


@pytest.mark.parametrize("order", [0, 1])
def test_in_any_order(subject, order):
    """An intensity transform before or after a spatial one does not change the map."""
    torch.manual_seed(3)
    spatial = tio.RandomAffine(degrees=(20, 20, 0, 0, 0, 0), scales=0, translation=0)
    alone = training_transform([copy.deepcopy(spatial)], (4, 4, 4))(subject)
    parts = [spatial, tio.RandomGamma(log_gamma=(0.3, 0.5))]
    both = training_transform(parts[::-1] if order else parts, (4, 4, 4))(subject)
    torch.testing.assert_close(both["weight"].data, alone["weight"].data)
    assert not torch.allclose(both["image"].data, alone["image"].data, atol=1e-2)


def test_without_a_map_the_same_transforms_run(subject):
    subject.remove_image("weight")
    torch.manual_seed(1)
    transform = training_transform([make() for make in (*INTENSITY.values(), *SPATIAL.values())], (4, 4, 4))
    assert transform(subject)["image"].data.isfinite().all()


def test_a_transform_meant_for_the_map_is_the_user_s_own(subject):
    transform = tio.Lambda(lambda tensor: tensor * 2, include=["weight"])
    leave_risk_alone(transform)
    torch.testing.assert_close(transform(subject)["weight"].data, subject["weight"].data * 2)


def test_padding_up_to_the_patch(subject):
    result = training_transform([], (20, 8, 16))(subject)
    for name in ("image", "weight", "label"):
        assert result[name].spatial_shape == (20, 12, 16)
    # 14 -> 20 and 10 -> 16 voxels: three on each side; nothing is cut
    inner = (slice(None), slice(3, 17), slice(None), slice(3, 13))
    torch.testing.assert_close(result["weight"].data[inner], subject["weight"].data)
    torch.testing.assert_close(result["image"].data[inner], subject["image"].data)
    for name, neutral in (("image", 0), ("label", 0), ("weight", 1)):
        border = result[name].data.clone()
        border[inner] = neutral
        assert (border == neutral).all(), name
    assert training_transform([], (4, 4, 4))(subject)["image"].spatial_shape == SHAPE


def test_patches_cut_map_and_image_alike(subject):
    torch.manual_seed(0)
    sampler = tio.LabelSampler((6, 5, 4), "label", {0: 1, 1: 1})
    transformed = patch(tio.RandomAffine(degrees=20))(subject)
    patches = list(sampler(transformed, 5))
    assert len(patches) == 5
    assert len({tuple(found[tio.LOCATION].tolist()) for found in patches}) > 1
    for found in patches:
        assert found["weight"].spatial_shape == (6, 5, 4)
        torch.testing.assert_close(found["weight"].data, found["image"].data)
        i, j, k = found[tio.LOCATION][:3].tolist()
        cut = transformed["weight"].data[:, i : i + 6, j : j + 5, k : k + 4]
        torch.testing.assert_close(found["weight"].data, cut)
