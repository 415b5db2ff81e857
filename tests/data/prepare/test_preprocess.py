"""The deterministic preprocessing, on rotated, anisotropic LAS volumes."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio
from nibabel.affines import apply_affine

from riskft.data.io.grid import TOLERANCE_MM
from riskft.data.labels import LabelMap
from riskft.data.prepare.background import find_background
from riskft.data.prepare.intensity import MinMaxIntensity, PercentileIntensity
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.cases import native_segmentation

SHAPE = (14, 10, 8)
SPACING = (1.2, 1.5, 2.0)
LABELS = LabelMap({"blob": [1], "tip": [2]}, ignore=[9])
PLAIN = Preprocessing(crop=False, intensity=None)


def las(degrees: float = 12.0) -> np.ndarray:
    """LAS (x points left), rotated about z."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-SPACING[0], SPACING[1], SPACING[2]])
    affine[:3, 3] = (11, -7, 23)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image that is 0 outside a box of 10 x 6 x 4 voxels, and a label inside of it."""
    image = np.zeros(SHAPE, np.float32)
    image[2:12, 2:8, 3:7] = np.random.default_rng(seed).uniform(50, 150, (10, 6, 4))
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 3:6, 4:6] = 1
    label[8, 3:6, 4:6] = 2
    label[9, 3, 4] = 9
    return image, label


def make(folder: Path, *, label: np.ndarray | None = None, affine: np.ndarray | None = None, **images) -> Case:
    affine = las() if affine is None else affine
    first, own_label = arrays()
    images = images or {"t1": first}
    paths = {name: save(folder / f"{name}.nii.gz", image, affine) for name, image in images.items()}
    return Case("p01", paths, save(folder / "label.nii.gz", own_label if label is None else label, affine))


def test_canonical_orientation_keeps_every_voxel_where_it_was(tmp_path):
    second = arrays(seed=1)[0]
    image, label = arrays()
    volumes = preprocess(make(tmp_path, t1=image, t2=second), LABELS, PLAIN)
    assert nib.aff2axcodes(volumes.affine) == ("R", "A", "S")
    assert volumes.image.shape == (2, *SHAPE)
    # x is turned round and nothing else
    np.testing.assert_array_equal(volumes.image[0].numpy(), image[::-1])
    np.testing.assert_array_equal(volumes.image[1].numpy(), second[::-1])
    np.testing.assert_array_equal(volumes.mask[0].numpy(), (image > 0)[::-1])
    expected = np.where(label == 9, 255, label)[::-1]
    np.testing.assert_array_equal(volumes.label[0].numpy(), expected)
    assert volumes.label.dtype == torch.uint8
    for voxel in ((3, 2, 4), (11, 7, 6)):
        mirrored = (SHAPE[0] - 1 - voxel[0], *voxel[1:])
        np.testing.assert_allclose(apply_affine(volumes.affine, mirrored), apply_affine(las(), voxel), atol=1e-4)


@pytest.mark.parametrize("axes", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_permuted_axes(tmp_path, axes):
    image, label = arrays()
    affine = las()
    affine[:3, :3] = affine[:3, axes]
    case = make(tmp_path, t1=image.transpose(axes), label=label.transpose(axes), affine=affine)
    volumes = preprocess(case, LABELS, PLAIN)
    np.testing.assert_array_equal(volumes.image[0].numpy(), image[::-1])
    np.testing.assert_array_equal(volumes.label[0].numpy() == 1, (label == 1)[::-1])


@pytest.mark.parametrize("orientation", ["LIA", "PSR", "RAS"])
def test_another_orientation_keeps_every_voxel_where_it_was(tmp_path, orientation):
    image, label = arrays()
    options = Preprocessing(crop=False, intensity=None, orientation=orientation)
    volumes = preprocess(make(tmp_path), LABELS, options)
    assert "".join(nib.aff2axcodes(volumes.affine)) == orientation
    # voxel by voxel, through mm
    found = np.stack(np.meshgrid(*(np.arange(size) for size in volumes.image.shape[1:]), indexing="ij"), -1)
    inverse = np.linalg.inv(las())
    source = np.rint(apply_affine(inverse, apply_affine(volumes.affine, found))).astype(int)
    np.testing.assert_array_equal(volumes.image[0].numpy(), image[tuple(np.moveaxis(source, -1, 0))])
    np.testing.assert_array_equal(volumes.label[0].numpy() == 2, (label == 2)[tuple(np.moveaxis(source, -1, 0))])


def test_no_orientation_keeps_the_file_s_axes(tmp_path):
    volumes = preprocess(make(tmp_path), LABELS, Preprocessing(crop=False, intensity=None, orientation=None))
    np.testing.assert_array_equal(volumes.image[0].numpy(), arrays()[0])
    np.testing.assert_allclose(volumes.affine, las(), atol=1e-6)


def test_spacing_and_crop_follow_the_orientation(tmp_path):
    # the file's 1.2, 1.5 and 2 mm lie along L, A and S: LIA is (1.2, 2, 1.5), of which the second is halved
    options = Preprocessing(spacing=(1.2, 1.0, 1.5), margin=0, intensity=None, orientation="LIA")
    volumes = preprocess(make(tmp_path), LABELS, options)
    np.testing.assert_allclose(np.linalg.norm(volumes.affine[:3, :3], axis=0), (1.2, 1.0, 1.5), atol=1e-4)
    assert volumes.image.shape == (1, 10, 8, 6)


@pytest.mark.parametrize("orientation", ["LIA", "PSR", None])
@pytest.mark.parametrize("crop", [False, True])
def test_a_segmentation_finds_back_to_the_scan_from_any_orientation(tmp_path, orientation, crop):
    case = make(tmp_path)
    volumes = preprocess(case, LABELS, Preprocessing(crop=crop, margin=1, orientation=orientation))
    classes = volumes.label[0].long()
    probabilities = torch.stack([(classes == index).float() for index in range(3)])
    label = arrays()[1]
    expected = np.where(label == 9, 0, label)  # an ignored voxel has no class
    np.testing.assert_array_equal(native_segmentation(probabilities, volumes.affine, case).classes, expected)


def test_intensities_are_of_the_cropped_volume(tmp_path):
    image = arrays()[0]
    head = image[2:12, 2:8, 3:7]
    volumes = preprocess(make(tmp_path), LABELS, Preprocessing(margin=0, intensity=MinMaxIntensity()))
    expected = (head - head.min()) / (head.max() - head.min())
    np.testing.assert_allclose(volumes.image[0].numpy(), expected[::-1], atol=1e-6)


def test_crop_leaves_the_head_and_its_margin_in_place(tmp_path):
    image, label = arrays()
    volumes = preprocess(make(tmp_path), LABELS, Preprocessing(crop=True, margin=1, intensity=None))
    # the box 2..11, 2..7, 3..6 and one voxel around it
    inside = (slice(1, 13), slice(1, 9), slice(2, 8))
    assert volumes.image.shape == (1, 12, 8, 6)
    np.testing.assert_array_equal(volumes.image[0].numpy(), image[inside][::-1])
    np.testing.assert_array_equal(volumes.label[0].numpy() == 2, (label == 2)[inside][::-1])
    # the first voxel is the one at x = 12, y = 1, z = 2 of the file
    np.testing.assert_allclose(volumes.affine[:3, 3], apply_affine(las(), (12, 1, 2)), atol=1e-4)


@pytest.mark.parametrize(("margin", "shape"), [(0, (10, 6, 4)), (2, (14, 10, 7)), (50, SHAPE)])
def test_margins_end_at_the_border(tmp_path, margin, shape):
    volumes = preprocess(make(tmp_path), LABELS, Preprocessing(margin=margin))
    assert volumes.image.shape[1:] == shape
    assert volumes.label.shape == volumes.mask.shape == (1, *shape)


def test_the_crop_keeps_what_any_channel_has(tmp_path):
    first, second = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    first[3:5, 4:6, 2:4] = 1
    second[8:10, 6:8, 5:7] = 1
    volumes = preprocess(make(tmp_path, t1=first, t2=second), LABELS, Preprocessing(margin=0))
    assert volumes.image.shape == (2, 7, 4, 5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.4, 1.5, 1.0)])
def test_resampling(tmp_path, spacing):
    """A ramp in world coordinates stays that ramp: values are where they were, in mm."""
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij"), -1)
    world = apply_affine(las(), voxels)
    ramp = (1000 + world @ np.array([1.0, 2.0, -3.0])).astype(np.float32)
    label = (ramp > np.median(ramp)).astype(np.uint8)
    options = Preprocessing(spacing=spacing, crop=False, intensity=None)
    volumes = preprocess(make(tmp_path, t1=ramp, label=label), LABELS, options)
    np.testing.assert_allclose(np.linalg.norm(volumes.affine[:3, :3], axis=0), spacing, atol=1e-4)
    size = np.array(SHAPE) * SPACING / spacing
    assert all(abs(found - wanted) < 1.001 for found, wanted in zip(volumes.image.shape[1:], size, strict=True))
    inner = np.stack(np.meshgrid(*(np.arange(2, n - 2) for n in volumes.image.shape[1:]), indexing="ij"), -1)
    here = 1000 + apply_affine(volumes.affine, inner) @ np.array([1.0, 2.0, -3.0])
    found = volumes.image[0].numpy()[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(found, here, atol=0.05)
    # labels: whole classes, in step with the image but for half a voxel (at most 0.6 + 1.5 + 3 along the ramp)
    classes = volumes.label[0].numpy()[2:-2, 2:-2, 2:-2]
    assert set(np.unique(volumes.label)) == {0, 1}
    away = np.abs(found - np.median(ramp)) > 5.1
    np.testing.assert_array_equal(classes[away], (found > np.median(ramp))[away])


@pytest.mark.parametrize("degrees", [0, 3, 12, 30])
def test_resampling_to_the_own_spacing_changes_nothing(tmp_path, degrees):
    image, _ = arrays()
    case = make(tmp_path, affine=las(degrees))
    volumes = preprocess(case, LABELS, Preprocessing(spacing=SPACING, crop=False, intensity=None))
    np.testing.assert_array_equal(volumes.image[0].numpy(), image[::-1])
    # and along an axis that has its spacing already no slice is lost
    halved = preprocess(case, LABELS, Preprocessing(spacing=(1.2, 1.5, 4.0), crop=False, intensity=None))
    assert halved.image.shape == (1, 14, 10, 4)
    np.testing.assert_allclose(volumes.affine[:3, 3], apply_affine(las(degrees), (13, 0, 0)), atol=1e-4)


def test_zscore_inside_the_head(tmp_path):
    volumes = preprocess(make(tmp_path), LABELS, Preprocessing())
    inside = volumes.image[volumes.mask]
    assert inside.mean().item() == pytest.approx(0, abs=1e-5)
    assert inside.std().item() == pytest.approx(1, abs=1e-5)
    assert volumes.mask.sum() == 10 * 6 * 4
    assert (volumes.image[~volumes.mask] == 0).all()


def test_each_channel_has_its_own_head(tmp_path):
    first, second = arrays()[0], arrays(seed=1)[0] * 7 - 20
    second[:, :, 5:] = second.min()
    volumes = preprocess(make(tmp_path, t1=first, t2=second), LABELS, Preprocessing(crop=False))
    for channel, raw in enumerate((first, second)):
        head = torch.from_numpy((raw > raw.min())[::-1].copy())
        assert volumes.image[channel][head].mean().item() == pytest.approx(0, abs=1e-5)
        assert (volumes.image[channel][~head] == 0).all()
    np.testing.assert_array_equal(volumes.mask[0].numpy(), ((first > 0) | (second > second.min()))[::-1])


def test_a_constant_image_becomes_zero_and_is_not_cropped(tmp_path):
    volumes = preprocess(make(tmp_path, t1=np.full(SHAPE, 7, np.int16)), LABELS, Preprocessing())
    assert volumes.image.shape == (1, *SHAPE)
    assert (volumes.image == 0).all()
    assert not volumes.mask.any()


@pytest.mark.parametrize("background", [0.0, -1024.0, 7.0])
def test_the_body_is_all_but_the_background_s_one_value(background):
    channel = torch.randn(10, 10, 10, generator=torch.Generator().manual_seed(0))  # below and above 0
    channel[:4] = background
    expected = torch.ones(10, 10, 10, dtype=torch.bool)
    expected[:4] = False
    np.testing.assert_array_equal(~find_background(channel.numpy()).outside, expected.numpy())


@pytest.mark.parametrize(("voxels", "outside"), [(50, 50), (49, 0)])
def test_a_value_that_is_too_rare_for_a_background(voxels, outside):
    channel = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    channel[:voxels] = 0  # one in twenty, or fewer
    assert find_background(channel.reshape(10, 10, 10).numpy()).outside.sum() == outside


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_as_torchio_s_transforms(tmp_path, dtype, axes):
    """Orientation and z-score equal TorchIO's on the whole volume, for each dtype and memory order."""
    first, second = (arrays(seed)[0].transpose(axes).astype(dtype) for seed in (0, 1))
    affine = las()
    affine[:3, :3] = affine[:3, axes]
    case = make(tmp_path, t1=first, t2=second, label=arrays()[1].transpose(axes), affine=affine)
    volumes = preprocess(case, LABELS, Preprocessing(crop=False))
    image = tio.ToOrientation("RAS")(
        tio.ScalarImage(tensor=np.stack([first, second]).astype(np.float32), affine=affine)
    )
    for found, channel in zip(volumes.image, image.data, strict=True):
        inside = channel > 0
        expected = (channel - channel[inside].mean()) / channel[inside].std() * inside
        torch.testing.assert_close(found.contiguous(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(volumes.affine, image.affine, atol=1e-6)


def test_without_label(tmp_path):
    case = make(tmp_path)
    volumes = preprocess(Case("p01", case.images), LABELS, Preprocessing(spacing=(2, 2, 2)))
    assert volumes.label is None
    assert volumes.image.isfinite().all()


def damage_shape(case: Case) -> None:
    save(case.images["t2"], np.ones((14, 10, 7), np.float32), las())


def damage_label_shape(case: Case) -> None:
    save(case.files[-1], np.zeros((14, 9, 8), np.uint8), las())


def damage_label_value(case: Case) -> None:
    save(case.files[-1], np.full(SHAPE, 3, np.uint8), las())


def damage_axes(case: Case) -> None:
    save(case.images["t2"], np.ones((*SHAPE, 2), np.float32), las())


def damage_file(case: Case) -> None:
    case.images["t2"].write_bytes(case.images["t2"].read_bytes()[:-40])


def damage_nan(case: Case) -> None:
    image = arrays()[0]
    image[0, 0, 0] = np.nan
    save(case.images["t2"], image, las())


def damage_affine(case: Case) -> None:
    path = case.images["t2"] = case.images["t2"].with_name("t2.nii")
    save(path, arrays()[0], las())
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()  # srow_x[0]
    path.write_bytes(content)


def damage_kind(case: Case) -> None:
    save(case.files[-1], np.zeros(SHAPE, np.complex64), las())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_affine, r"t2\.nii: the affine is singular or not finite"),
        (damage_kind, r"label\.nii\.gz: stores complex numbers or colours"),
        (damage_shape, r"p01: modalities have shapes \[\(14, 10, 8\), \(14, 10, 7\)\], expected one"),
        (damage_label_shape, r"label\.nii\.gz: found shape \(14, 9, 8\), expected \(14, 10, 8\), as the image has"),
        (damage_label_value, r"label\.nii\.gz: Label values 3 are in no class"),
        (damage_axes, r"t2\.nii\.gz: found shape \(14, 10, 8, 2\), expected a 3-D volume"),
        (damage_file, r"t2\.nii\.gz: cannot be read"),
        (lambda case: case.images["t2"].unlink(), r"t2\.nii\.gz: cannot be read"),
        (damage_nan, r"t2\.nii\.gz: NaN or infinite voxels.*p01"),
    ],
)
def test_a_bad_file_is_named(tmp_path, damage, message):
    case = make(tmp_path, t1=arrays()[0], t2=arrays(seed=1)[0])
    damage(case)
    with pytest.raises(InputError, match=message):
        preprocess(case, LABELS, Preprocessing())


def moved(millimetres: float) -> np.ndarray:
    affine = las()
    affine[2, 3] += millimetres
    return affine


@pytest.mark.parametrize("file", ["t2.nii.gz", "label.nii.gz"])
def test_files_that_lie_apart_are_named(tmp_path, file):
    case = make(tmp_path, t1=arrays()[0], t2=arrays(seed=1)[0])
    path = next(path for path in case.files if path.name == file)
    voxels = np.asarray(nib.load(path).dataobj)
    save(path, voxels, moved(0.9 * TOLERANCE_MM))
    preprocess(case, LABELS, Preprocessing())
    save(path, voxels, moved(3))
    with pytest.raises(InputError, match="files of p01 are not in the same place") as caught:
        preprocess(case, LABELS, Preprocessing())
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: the affine places a corner 3 mm from where t1.nii.gz has it")


def test_channels_of_one_file_and_analyze_lie_in_one_place(tmp_path):
    case = make(tmp_path, t1=arrays()[0])
    stack = save(tmp_path / "stack.nii.gz", np.stack([arrays()[0], arrays(seed=1)[0]], axis=-1), las())
    label = tmp_path / "label.hdr"  # whose affine says nothing
    nib.save(nib.AnalyzeImage(np.asarray(nib.load(case.files[-1]).dataobj), np.diag([-5.0, 1, 1, 1])), label)
    several = Case("p01", {"a": stack, "b": stack}, label, channels={"a": 0, "b": 1})
    assert preprocess(several, LABELS, Preprocessing()).image.shape[0] == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("spacing", (1.0, 0.0, 1.0)),
        ("spacing", (1, 1, -2)),
        ("margin", -1),
        *(("orientation", text) for text in ("RA", "RAL", "ras", "RASS", "XYZ", "")),
    ],
)
def test_bad_options(option, value):
    with pytest.raises(InputError, match=rf"data\.preprocessing\.{option} is "):
        Preprocessing(**{option: value})


def test_the_description_tells_intensities_apart():
    descriptions = [
        Preprocessing(intensity=intensity).describe()
        for intensity in (None, PercentileIntensity(), PercentileIntensity(1, 98), MinMaxIntensity())
    ]
    assert all(descriptions.count(each) == 1 for each in descriptions)
    assert Preprocessing(intensity=PercentileIntensity()).describe() == descriptions[1]
    assert Preprocessing(orientation=None).describe() != Preprocessing().describe()
