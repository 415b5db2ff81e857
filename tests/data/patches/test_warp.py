"""Patches of parts of a volume equal those that are cut from the whole volume, which TorchIO transforms."""

import warnings

import numpy as np
import pytest
import torch
import torchio as tio
from prepared_volumes import write_prepared
from scipy.ndimage import gaussian_filter

from riskft.data.io.boxes import Boxes, ChannelBoxes
from riskft.data.io.volumes import write_channels
from riskft.data.patches.augment import PadToPatch, drawn, training_transform, with_intensities, works_on_patches
from riskft.data.patches.queue import PatchLoader, Visit
from riskft.data.patches.sampling import BalancedSampling
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.patches.volumes import PatchesOfParts, PatchesOfWholes, _Volume, training_patches
from riskft.data.patches.warp import Warp
from riskft.errors import InputError

SHAPE = 26, 22, 18


def turned(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def geometry(matrix, origin=(5, -3, 8)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return affine


AFFINES = {
    "straight": geometry(np.diag([1, 1.2, 1.5])),
    "oblique": geometry(turned(12) @ np.diag([-1, 1.1, 0.9])),
    "permuted": geometry([[0, 0, 1.2], [1, 0, 0], [0, 0.8, 0]]),
}


def elastic(seed, locked=2):
    torch.manual_seed(seed)
    points = tio.RandomElasticDeformation.get_params((7, 6, 5 if locked == 2 else 4), (3, 2, 2), locked)
    return tio.ElasticDeformation(points, (3, 2, 2))


TRANSFORMS = {
    "flip": [tio.Flip([0])],
    "flip of two axes": [tio.Flip([1, 2])],
    "flips": [tio.Flip([0]), tio.Flip([0, 1])],
    "affine": [tio.Affine((1.1, 0.9, 1.05), (8, -5, 12), (2, -3, 1))],
    "affine with values to pad": [
        tio.Affine((0.8, 0.8, 0.8), (3, 0, 0), (5, 0, 0), default_pad_value=3.5, default_pad_label=1)
    ],
    "affine beyond the volume": [tio.Affine((1, 1, 1), (0, 0, 0), (200, 0, 0))],
    "affine about the origin": [tio.Affine((1.02, 1, 1), (3, -2, 4), (1, 1, 1), center="origin")],
    "elastic": [elastic(0)],
    "elastic to the border": [elastic(1, locked=0)],
    "elastic between flips": [tio.Flip([0]), elastic(2), tio.Flip([1])],
    "affine between flips": [tio.Flip([0]), tio.Affine((1.1, 0.9, 1.05), (8, -5, 12), (2, -3, 1)), tio.Flip([2])],
}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Returns the files of smooth images of two channels, labels, weights and EEPs, by the name of their geometry."""
    made = {}
    for name, affine in AFFINES.items():
        rng = np.random.default_rng(0)
        first, second = (gaussian_filter(rng.normal(size=SHAPE), 1.5) * 8 for _ in range(2))
        label = np.digitize(first, np.quantile(first, [0.7, 0.9]))
        folder = tmp_path_factory.mktemp(name) / "case"
        case = write_prepared(
            folder,
            affine=affine,
            image=np.stack([first, second], -1).astype(np.float32),
            label=label.astype(np.uint8),
            weight=(second + 9).astype(np.float32),
        )
        write_channels(folder / "eep.npz", torch.from_numpy(np.stack([first, second])), affine)
        made[name] = case
    return made


def parts_and_whole(case, size):
    """Returns a case as a volume of which parts are read, and as TorchIO's subject, padded."""
    maps = TrainingMaps({"case": case.folder / "weight.nii"}, {"case": case.folder / "eep.npz"})
    (subject,) = maps.subjects([case])
    files = {name: case.folder / f"{name}.nii" for name in ("image", "label", "weight")}
    boxes = {name: Boxes(path) for name, path in files.items()}
    volume = _Volume({**boxes, "eep": ChannelBoxes(case.folder / "eep.npz")}, size)
    return volume, PadToPatch(size)(subject)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("size", [[9, 8, 7], [30, 8, 19]])  # the second is larger than the volume
@pytest.mark.parametrize("affine", AFFINES)
def test_a_warped_patch_is_cut_from_the_warped_volume(volumes, name, size, affine):
    volume, padded = parts_and_whole(volumes[affine], size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # about foldings
        whole = tio.Compose(TRANSFORMS[name])(padded)
    warp = Warp(TRANSFORMS[name], volume.grid)
    for place in ([0, 0, 0], [7, 6, 5], [99, 99, 99]):
        start = volume.start_at(place)
        box = tuple(slice(first, first + edge) for first, edge in zip(start, size, strict=True))
        for kind, values in volume.warped(warp, start).items():
            expected = whole[kind].data[(slice(None), *box)].to(values.dtype)
            torch.testing.assert_close(values, expected, rtol=0, atol=0 if kind == "label" else 1e-4)
        assert values.shape[1:] == tuple(size)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_centre_moves_with_the_image(volumes, name):
    volume, _ = parts_and_whole(volumes["oblique"], [4, 4, 4])
    warp = Warp(TRANSFORMS[name], volume.grid)
    for voxel in ([13, 11, 9], [8, 9, 11]):
        there = np.rint(warp.forward(voxel)).astype(int).tolist()
        back = warp.coordinates(there, [1, 1, 1]).flatten()
        assert (back - torch.tensor(voxel)).abs().max() < 1  # rounded to a voxel, and only inverted approximately


def test_a_part_that_is_read_is_little_larger_than_the_patch(volumes):
    volume, _ = parts_and_whole(volumes["straight"], [8, 8, 8])
    low, high = Warp([tio.Affine((1, 1, 1), (10, 0, 0), (0, 0, 0))], volume.grid).reach([9, 7, 5], [8, 8, 8])
    # turned by 10 degrees in mm about x and the patch's centre, 12.5, 10.5, 8.5: 3.5 voxels of y and z reach
    # 3.5 cos 10 + 3.5 * 1.5 / 1.2 sin 10 = 4.21 voxels of y, and 3.93 of z; and one voxel more on each side
    assert (low, high) == ([8, 5, 3], [18, 17, 15])


@pytest.mark.parametrize(
    "transform",
    [tio.BiasField({"image": [0.1 * k for k in range(20)]}, {"image": 3}), tio.Gamma({"image": [1.3, 0.8]})],
)
def test_intensities_are_those_of_the_whole_volume(volumes, transform):
    volume, whole = parts_and_whole(volumes["straight"], [9, 8, 7])
    whole.image.set_data(whole.image.data.abs())
    start = [11, 4, 6]
    box = (slice(None), slice(11, 20), slice(4, 12), slice(6, 13))
    found = with_intensities(whole.image.data[box], [transform], start, volume.grid)
    torch.testing.assert_close(found, transform(tio.Subject(image=whole.image)).image.data[box])


AUGMENT = {
    "spatial": lambda: [tio.RandomFlip((0, 1, 2)), tio.RandomAffine(degrees=20, translation=3)],
    "all": lambda: [
        tio.OneOf([tio.RandomAffine(degrees=20), tio.RandomElasticDeformation(5, 2, p=0.5)]),
        tio.Compose([tio.RandomFlip(["LR"]), tio.RandomGamma(p=0.5)]),
        tio.RandomBiasField(p=0.3),
        tio.RandomNoise(std=0.01),
    ],
}


@pytest.mark.parametrize("name", AUGMENT)
def test_augmented_patches(volumes, name):
    """The maps follow the image, the centre stays in its class, and the seed decides all."""
    case = volumes["oblique"]
    maps = TrainingMaps({"case": case.folder / "weight.nii"}, {"case": case.folder / "eep.npz"})
    source = training_patches([case], maps, AUGMENT[name](), (9, 8, 7), BalancedSampling(1.0), 3, per_volume=24)
    assert isinstance(source, PatchesOfParts)
    torch.manual_seed(1)
    numbers = torch.get_rng_state()
    batch = source.patches(Visit(0, numbers, 5))
    assert torch.equal(torch.get_rng_state(), numbers)
    if name == "spatial":  # the weight is the second channel plus 9, the EEP is the image
        torch.testing.assert_close(batch.weight[:, 0], batch.image[:, 1] + 9, rtol=0, atol=1e-3)
        torch.testing.assert_close(batch.eep, batch.image, rtol=0, atol=1e-2)  # float16 on disk
    assert batch.label.dtype == torch.uint8
    assert (batch.label[:, 0, 3:6, 3:6, 2:5].flatten(1).max(1).values > 0).float().mean() > 0.8
    again, other = source.patches(Visit(0, numbers, 5)), source.patches(Visit(0, numbers, 6))
    assert torch.equal(batch.image, again.image)
    assert not torch.equal(batch.image, other.image)
    assert len({image.numpy().tobytes() for image in batch.image}) == 24


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_of_augmented_patches_depends_on_its_number_alone(volumes, workers):
    cases = list(volumes.values())
    loaders = []
    for _ in range(2):
        source = training_patches(cases, TrainingMaps(), AUGMENT["all"](), (9, 8, 7), BalancedSampling(), 3, 2)
        loaders.append(PatchLoader(source, 3, 4, workers, seed=3))
    epochs = []
    for loader, numbers in zip(loaders, ((0, 1), (1,)), strict=True):
        for number in numbers:
            loader.sampler.set_epoch(number)
            epochs.append([batch.image for batch in loader])
    assert all(torch.equal(one, other) for one, other in zip(epochs[1], epochs[2], strict=True))
    assert not torch.equal(epochs[0][0], epochs[1][0])


def whole_only():
    affine, noise, deformation = tio.RandomAffine(), tio.RandomNoise(), tio.RandomElasticDeformation()
    return {
        "unknown": [tio.RandomMotion()],
        "unknown spatial": [tio.RandomAnisotropy()],
        "own": [tio.Lambda(lambda tensor: tensor * 2)],
        "spatial after intensity": [noise, affine],
        "affine after elastic": [deformation, affine],
        "interpolation": [tio.RandomAffine(image_interpolation="bspline")],
        "padding": [tio.RandomAffine(default_pad_value="otsu")],
        "some images": [tio.RandomAffine(include=["image"])],
        "not the label": [tio.RandomFlip(exclude=["label"])],
        "nested": [tio.OneOf([affine, tio.Compose([tio.RandomBlur()])])],
    }


@pytest.mark.parametrize("name", whole_only())
def test_other_transforms_get_the_whole_volume(volumes, name):
    augment = whole_only()[name]
    assert not works_on_patches(augment)
    case = volumes["straight"]
    maps = TrainingMaps({"case": case.folder / "weight.nii"})
    source = training_patches([case], maps, augment, (9, 8, 7), BalancedSampling(), 3, per_volume=2)
    assert isinstance(source, PatchesOfWholes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = source.patches(Visit(0, torch.get_rng_state(), 1))
    assert batch.image.shape == (2, 2, 9, 8, 7)
    assert batch.weight.shape == (2, 1, 9, 8, 7)


def test_the_shipped_transforms_work_on_patches_also_for_a_second_loader():
    for make in AUGMENT.values():
        augment = make()
        training_transform(augment, (4, 4, 4))  # which excludes the maps from them
        assert works_on_patches(augment)
    assert works_on_patches([])


def test_each_transform_applies_with_its_probability(volumes):
    volume, _ = parts_and_whole(volumes["straight"], [9, 8, 7])
    augment = tio.Compose([tio.RandomAffine(degrees=(10, 10), p=0.5), tio.RandomNoise(p=0.25)])
    torch.manual_seed(0)
    found = [drawn(augment, volume.grid, channels=2) for _ in range(200)]
    assert 70 < sum(len(spatial) for spatial, _ in found) < 130
    assert 25 < sum(len(intensities) for _, intensities in found) < 75
    assert {transform.degrees for spatial, _ in found for transform in spatial} == {(10.0, 10.0, 10.0)}


def test_a_missing_image_is_named_before_its_patches_are_drawn(tmp_path):
    volumes = {"image": np.zeros((5, 5, 5, 1), np.float32), "label": np.zeros((5, 5, 5), np.uint8)}
    case = write_prepared(tmp_path / "p1", **volumes)
    source = training_patches([case], TrainingMaps(), (), (4, 4, 4), BalancedSampling(), 2, per_volume=2)
    (case.folder / "image.nii").unlink()
    with pytest.raises(InputError, match=r"(?s)p1: .*image.nii: no longer there"):
        source.numbers_before(0)
