"""HD95 of blobs, noise and distant structures, against MONAI on the whole volume."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage

from riskft.evaluation.metrics import score_case
from riskft.evaluation.surface import hd95


def monai(predicted, true, spacing) -> float:
    pair = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, true))
    found = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    return found.item()


def blobs(generator, shape, cut=0.5) -> np.ndarray:
    field = ndimage.gaussian_filter(generator.standard_normal(shape), 2)
    return field > cut * field.std()


def ball(shape, centre, radius) -> np.ndarray:
    offsets = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    return np.linalg.norm(offsets, axis=-1) <= radius


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 4.0), (3.0, 1.2, 0.7)])
@pytest.mark.parametrize("shape", [(30, 28, 26), (40, 36, 1), (1, 40, 3)], ids=str)
def test_blobs(shape, spacing):
    generator = np.random.default_rng(len(shape) + int(spacing[0]))
    true = blobs(generator, shape)
    for predicted in (blobs(generator, shape), true ^ (generator.random(shape) < 0.01), np.roll(true, 1, axis=1)):
        assert hd95(predicted, true, spacing) == pytest.approx(monai(predicted, true, spacing), rel=1e-5)
        # as nibabel reads it
        assert hd95(predicted, np.asfortranarray(true), spacing) == hd95(predicted, true, spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 5.0)])
@pytest.mark.parametrize("radius", [2, 10], ids=["searched", "transformed"])
def test_structures_that_lie_far_apart(radius, spacing):
    """A few voxels are searched one by one; for many, the distances of the whole box are computed."""
    shape = (40, 22, 22)
    predicted, true = ball(shape, (10, 11, 11), radius), ball(shape, (35, 11, 11), 3)
    predicted &= np.random.default_rng(0).random(shape) < 0.5
    assert hd95(predicted, true, spacing) == pytest.approx(monai(predicted, true, spacing), rel=1e-5)


@pytest.mark.parametrize("outliers", [1, 5, 9, 10, 11, 12, 20, 60])
def test_outliers_at_the_percentile(outliers):
    """The percentile lies within the distances that are looked up, at their end, or beyond them."""
    true = ball((32, 20, 20), (8, 10, 10), 5)
    predicted = true.copy()
    predicted[26].flat[:outliers] = True
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (predicted, true)]
    distances = [ndimage.distance_transform_edt(~to)[of] for of, to in (surfaces, surfaces[::-1])]
    found = hd95(predicted, true, (1.0, 1.0, 1.0))
    assert found == pytest.approx(max(np.percentile(one, 95) for one in distances))
    # MONAI finds the percentile's place between two distances in float32
    assert found == pytest.approx(monai(predicted, true, (1.0, 1.0, 1.0)), rel=1e-4)


def test_classes_and_regions_of_a_case():
    generator = np.random.default_rng(3)
    true = sum((blobs(generator, (24, 22, 20), cut) * 1 for cut in (0.2, 0.8, 1.4)), np.zeros((24, 22, 20), int))
    predicted = np.roll(true, 1, axis=0)
    true[:, :, 18] = 255
    spacing, regions = (1.0, 1.5, 0.8), {"whole": (1, 2, 3), "core": (1, 3)}
    options = {"spacing": spacing, "class_names": ["background", "a", "b", "c"]}
    counted = true != 255
    pair = torch.from_numpy(predicted), torch.from_numpy(true)
    found = [*score_case("p", *pair, **options), *score_case("p", *pair, **options, regions=regions)]
    for score, members in zip(found, [(1,), (2,), (3,), *regions.values()], strict=True):
        masks = [np.isin(volume, members) & counted for volume in (predicted, true)]
        assert (score.voxels_predicted, score.voxels_true) == tuple(int(mask.sum()) for mask in masks)
        assert score.dice == pytest.approx(2 * (masks[0] & masks[1]).sum() / sum(mask.sum() for mask in masks))
        assert score.hd95_mm == pytest.approx(monai(*masks, spacing), rel=1e-5)
