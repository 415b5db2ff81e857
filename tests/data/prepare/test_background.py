"""What is taken for background, on scans of every kind; and grey levels keep their order."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from riskft.data.labels import LabelMap
from riskft.data.prepare.background import find_background
from riskft.data.prepare.intensity import PerChannelIntensity, ZScoreIntensity
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.data.records import Case

SHAPE = (40, 44, 36)
DISTANCE = np.sqrt(
    sum(((index - size / 2 + 0.5) / size) ** 2 for index, size in zip(np.ogrid[:40, :44, :36], SHAPE, strict=True))
)
HEAD = DISTANCE < 0.4
_rng = np.random.default_rng(0)
TISSUE = np.select([cut > DISTANCE for cut in (0.1, 0.2, 0.3, 0.36)], [180.0, 120, 80, 40], 150)
TISSUE = TISSUE + _rng.normal(0, 6, SHAPE)
HOUNSFIELD = np.select([cut > DISTANCE for cut in (0.1, 0.2, 0.33, 0.36)], [-850.0, 20, 60, 900], -90)
HOUNSFIELD = np.where(HEAD, HOUNSFIELD + _rng.normal(0, 15, SHAPE), -1000 + _rng.normal(0, 12, SHAPE))
PADDING = np.ones(SHAPE, bool)
PADDING[4:-4, 4:-4] = False
OUTSIDE_VIEW = np.broadcast_to(
    sum((np.ogrid[:40, :44, :1][axis] - 19.5 - 2 * axis) ** 2 for axis in (0, 1)) > 380, SHAPE
)


def noise(sigma: float) -> np.ndarray:
    """Air in a magnitude image: Rician."""
    rng = np.random.default_rng(1)
    return np.abs(rng.normal(0, sigma, SHAPE) + 1j * rng.normal(0, sigma, SHAPE))


def whole(sigma: float, dtype: type = np.uint8) -> np.ndarray:
    """A head in noisy air."""
    image = np.where(HEAD, TISSUE, noise(sigma))
    return image.astype(dtype) if dtype == np.float32 else np.rint(image).clip(0, 255).astype(dtype)


def padded(value: float, dtype: type = np.int16) -> np.ndarray:
    return np.where(PADDING, value, whole(4, dtype)).astype(dtype)


def standardised(background: float) -> np.ndarray:
    head = TISSUE[HEAD]
    return np.where(HEAD, (TISSUE - head.mean()) / head.std(), background)


STRIPPED = {
    "float": np.where(HEAD, TISSUE, 0),
    "8 bit": np.where(HEAD, TISSUE, 0).clip(0, 255).astype(np.uint8),
    "-1": np.where(HEAD, TISSUE / 100, -1),
    "standardised": standardised(0),
    "standardised, -5": standardised(-5),
    "ringing": np.where(HEAD, np.where(DISTANCE > 0.39, _rng.normal(0, 9, SHAPE), TISSUE), 0),
    "lesion of one value": np.where(HEAD, np.where(DISTANCE < 0.1, 150, TISSUE), 0),
}
HEADS_AS_A_WHOLE = {
    **{f"8 bit noise {sigma}": whole(sigma) for sigma in (0.5, 1, 2, 4, 8)},
    "float noise": whole(4, np.float32),
    "noise below 0 cut off": np.where(HEAD, TISSUE, _rng.normal(0, 4, SHAPE)).clip(0),
    "negative of noise": 255 - whole(2),
    "frequent level inside": np.where(HEAD & (DISTANCE < 0.3), 90, whole(4, np.float32)),
    "lesion of air's value": np.where(DISTANCE < 0.2, 0, whole(4, np.float32)),
    "CT": np.rint(HOUNSFIELD).astype(np.int16),
    "CT from -1000 to 400": np.rint(HOUNSFIELD).clip(-1000, 400).astype(np.int16),
    "crop inside a head": TISSUE[12:28, 12:28, 12:28],
    "crop of few levels, larger": (np.rint(np.repeat(np.repeat(TISSUE[12:28, 12:28, 12:28], 3, 0), 3, 1) / 30)),
    "crop of few levels": np.rint(TISSUE[12:28, 12:28, 12:28] / 20).astype(np.uint8),
}
BACKGROUND_OF_A_GREY_LEVEL = {
    "padding 0": (np.where(PADDING, 0, whole(4, np.int16) + 1), 0, PADDING),
    "padding 0, float noise": (padded(0, np.float32), 0, PADDING),
    "padding -1000": (padded(-1000), -1000, PADDING),
    "padding between": (padded(50), 50, PADDING),
    "padding above": (padded(300), 300, PADDING),
    "CT, air of one value": (np.where(HEAD, np.rint(HOUNSFIELD), -1024), -1024, ~HEAD),
    "CT, circular view": (np.where(OUTSIDE_VIEW, -2000, np.rint(HOUNSFIELD)), -2000, OUTSIDE_VIEW),
    "CT from -160 to 240": (np.rint(HOUNSFIELD).clip(-160, 240), -160, ~HEAD),
    "CT from -160 to 240, lungs and no bone": (
        np.where(HEAD & (DISTANCE > 0.2), np.rint(TISSUE).clip(-160, 240), -160),
        -160,
        ~HEAD,
    ),
    "CT from 0 to 80, 8 bit": (np.rint(HOUNSFIELD.clip(0, 80) * 3).astype(np.uint8), 0, None),
    "negative of a stripped one": (np.where(HEAD, 200 - TISSUE, 1000), 1000, ~HEAD),
    "labels": (np.select([cut > DISTANCE for cut in (0.1, 0.2, 0.3, 0.4)], [3, 2, 1, 4], 0), 0, ~HEAD),
}


def prepared(
    folder: Path, image: np.ndarray, intensity: object = ZScoreIntensity(), **options
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the prepared image and mask of one modality."""
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), folder / "t1.nii.gz")
    case = Case("p01", {"t1": folder / "t1.nii.gz"})
    volumes = preprocess(case, LabelMap({"one": [1]}), Preprocessing(intensity=intensity, **options))
    return volumes.image[0].numpy(), volumes.mask[0].numpy()


def in_order(raw: np.ndarray, result: np.ndarray) -> bool:
    """Whether the mean result of each grey level is at least that of the level below."""
    _, level = np.unique(raw.astype(np.float32), return_inverse=True)
    means = np.bincount(level.ravel(), result.ravel().astype(np.float64)) / np.bincount(level.ravel())
    return bool((np.diff(means) >= -1e-5).all())


@pytest.mark.parametrize("image", STRIPPED.values(), ids=STRIPPED)
def test_outside_of_a_skull_stripped_image_is_0(tmp_path, image):
    result, mask = prepared(tmp_path, image, crop=False)
    np.testing.assert_array_equal(mask, HEAD)
    assert (result[~HEAD] == 0).all()
    inside = image[HEAD].astype(np.float64)
    np.testing.assert_allclose(result[HEAD], (inside - inside.mean()) / inside.std(ddof=1), atol=1e-4)


@pytest.mark.parametrize("image", HEADS_AS_A_WHOLE.values(), ids=HEADS_AS_A_WHOLE)
def test_noise_in_the_air_is_no_background(tmp_path, image):
    result, mask = prepared(tmp_path, image)
    assert mask.all()
    assert result.shape == image.shape
    assert in_order(image, result)


@pytest.mark.parametrize("sigma", [0.15, 0.2, 0.25, 0.3, 0.4])
def test_air_that_is_nearly_of_one_level_keeps_its_order(tmp_path, sigma):
    image = whole(sigma)
    assert np.count_nonzero((image == 0) & ~HEAD) > 0.5 * np.count_nonzero(~HEAD)
    assert in_order(image, prepared(tmp_path, image, crop=False)[0])


@pytest.mark.parametrize("found", BACKGROUND_OF_A_GREY_LEVEL.values(), ids=BACKGROUND_OF_A_GREY_LEVEL)
def test_a_background_that_is_a_grey_level_keeps_its_place(tmp_path, found):
    image, value, outside = found
    background = find_background(image)
    assert background.value == value
    assert background.is_level
    result, mask = prepared(tmp_path, image, crop=False)
    outside = background.outside if outside is None else outside
    np.testing.assert_array_equal(mask, ~outside)
    assert in_order(image, result)
    # it does not count, and does not lie beyond the grey values that do
    assert result[mask].mean() == pytest.approx(0, abs=1e-4)
    assert result[mask].std(ddof=1) == pytest.approx(1, abs=1e-4)
    assert result[mask].min() <= result[outside].min() == result[outside].max() <= result[mask].max()


def test_a_mask_is_not_emptied(tmp_path):
    image, _ = prepared(tmp_path, HEAD * 100, crop=False)
    inside, outside = np.unique(image[HEAD]), np.unique(image[~HEAD])
    assert inside.size == outside.size == 1
    assert inside - outside == pytest.approx(1 / HEAD.std(), rel=1e-3)


@pytest.mark.parametrize("value", [0, -3, 7, 2000])
def test_padding_changes_nothing(tmp_path, value):
    scan = whole(4, np.float32)
    expected, _ = prepared(tmp_path, scan, margin=0)
    found, _ = prepared(tmp_path, np.pad(scan, ((5, 9), (0, 3), (4, 4)), constant_values=value), margin=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_enclosed_voxels_of_the_background_s_value_are_inside(tmp_path):
    image = np.where(HEAD & (DISTANCE > 0.1), TISSUE, 0)
    result, mask = prepared(tmp_path, image, crop=False)
    np.testing.assert_array_equal(mask, HEAD)
    assert (result[DISTANCE < 0.1] < -1).all()


def test_a_head_that_reaches_all_borders(tmp_path):
    """The corners are cut off from each other, and further pieces from the corners."""
    outside = DISTANCE[9:31, 10:34, 8:28] > 0.33
    image = np.where(outside, 0, TISSUE[9:31, 10:34, 8:28])
    assert 0.05 < outside.mean() < 0.3
    _, mask = prepared(tmp_path, image, crop=False)
    np.testing.assert_array_equal(mask, ~outside)


def test_a_border_of_tissue_is_no_background(tmp_path):
    # one constant tissue reaches a face, but no corner
    image = whole(4, np.float32)
    image[14:26, 14:30, :] = 90
    _, mask = prepared(tmp_path, image)
    assert mask.all()


def test_channels_with_other_backgrounds(tmp_path):
    images = {"t1": np.where(HEAD, TISSUE, 0), "ct": np.where(HEAD, HOUNSFIELD, -1024), "t2": whole(4, np.float32)}
    for name, image in images.items():
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    case = Case("p01", {name: tmp_path / f"{name}.nii.gz" for name in images})
    for intensity in (ZScoreIntensity(), PerChannelIntensity([ZScoreIntensity()] * 3)):
        image = preprocess(case, LabelMap({"one": [1]}), Preprocessing(intensity=intensity)).image.numpy()
        assert image.shape == (3, *SHAPE)  # one of them is head as a whole
        assert (image[0][~HEAD] == 0).all()
        assert (image[1][~HEAD] == image[1][HEAD].min()).all()
        assert image[1][HEAD].mean() == pytest.approx(0, abs=1e-5)
        assert image[2].mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("change", [lambda image: 3 * image + 40, lambda image: image / 500 - 1])
def test_scale_and_offset_change_nothing(tmp_path, change: Callable[[np.ndarray], np.ndarray]):
    for image in (STRIPPED["float"], HEADS_AS_A_WHOLE["8 bit noise 2"], padded(0)):
        expected, expected_mask = prepared(tmp_path, image)
        found, mask = prepared(tmp_path, change(image.astype(np.float64)))
        np.testing.assert_array_equal(mask, expected_mask)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_resampled_edges_keep_their_order(tmp_path):
    result, mask = prepared(tmp_path, BACKGROUND_OF_A_GREY_LEVEL["CT, air of one value"][0], spacing=(1.3, 1.3, 1.3))
    assert result[~mask].max() < -0.5
    assert result[~mask].min() == result[mask].min()


@pytest.mark.parametrize("seed", range(12))
def test_the_background_is_what_is_connected_to_a_face(seed):
    """In the whole volume as in the body's box, and in both memory orders."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((14, 17, 12)), 1.2)
    image = np.where(field > rng.uniform(-0.5, 0.5) * field.std(), 100 + field * 900, 0).astype(np.float32)
    image[[0, -1], [0, -1], [0, -1]] = 0
    pieces, _ = ndimage.label(image == 0)
    faces = [pieces.take(end, axis) for axis in range(3) for end in (0, -1)]
    expected = np.isin(pieces, np.setdiff1d(np.concatenate([face.ravel() for face in faces]), 0))
    for found in (find_background(image), find_background(np.asfortranarray(image))):
        np.testing.assert_array_equal(found.outside, expected if found.value is not None else np.zeros_like(expected))
