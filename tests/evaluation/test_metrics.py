"""Dice and HD95 with one policy for empty classes, by hand and against MONAI."""

import math

import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from riskft.evaluation.metrics import CaseScore, ClassMean, class_means, overall, score_case

SPACING = (1.0, 2.0, 3.0)
SHAPE = (12, 10, 9)
DIAGONAL = math.sqrt(12**2 + 20**2 + 27**2)


def cube(corner=(2, 2, 2), edge=2, value=1, shape=SHAPE) -> torch.Tensor:
    volume = torch.zeros(shape, dtype=torch.int64)
    volume[tuple(slice(start, start + edge) for start in corner)] = value
    return volume


def score(prediction, truth, names=("background", "a"), spacing=SPACING, **options) -> CaseScore:
    (found,) = score_case("p01", prediction, truth, names, spacing, **options)
    return found


@pytest.mark.parametrize(
    ("shift", "dice", "hd95"),
    [
        ((0, 0, 0), 1.0, 0.0),
        ((1, 0, 0), 0.5, 1.0),  # 4 of 8 + 8 voxels overlap; half of each surface is one voxel away
        ((0, 1, 0), 0.5, 2.0),
        ((0, 0, 1), 0.5, 3.0),
        ((0, 0, 3), 0.0, 9.0),
        ((6, 0, 0), 0.0, 6.0),
        # one of eight voxels overlaps; the farthest voxel, 1 of 8 > 5 %, is a diagonal away; quantiles are
        # interpolated: 0.95 * 7 = 6.65 between sqrt(4 + 9) and sqrt(1 + 4 + 9)
        ((1, 1, 1), 0.125, 0.35 * math.sqrt(13) + 0.65 * math.sqrt(14)),
    ],
)
def test_shifted_cubes(shift, dice, hd95):
    found = score(cube(tuple(2 + step for step in shift)), cube())
    assert found.dice == pytest.approx(dice)
    assert found.hd95_mm == pytest.approx(hd95)
    assert (found.subject, found.class_name, found.voxels_true, found.voxels_predicted) == ("p01", "a", 8, 8)


def test_hd95_is_the_larger_of_both_directions():
    truth = cube() + cube((8, 2, 2))  # a second part that the prediction has not
    # from prediction to truth 0; from truth to prediction 8 of 16 voxels are 5 or 6 mm away
    for prediction, true in ((cube(), truth), (truth, cube())):
        found = score(prediction, true)
        assert found.hd95_mm == pytest.approx(6)
        assert found.dice == pytest.approx(2 * 8 / 24)


def test_absent_from_both_has_no_value():
    found = score(torch.zeros(SHAPE), torch.zeros(SHAPE))
    assert math.isnan(found.dice)
    assert math.isnan(found.hd95_mm)
    assert (found.voxels_true, found.voxels_predicted) == (0, 0)


@pytest.mark.parametrize("missed", [True, False])
def test_absent_from_one_is_the_worst_value(missed):
    volumes = [torch.zeros(SHAPE, dtype=torch.int64), cube()]
    found = score(*(volumes if missed else volumes[::-1]))
    assert found.dice == 0
    assert found.hd95_mm == pytest.approx(DIAGONAL)
    assert (found.voxels_true, found.voxels_predicted) == ((8, 0) if missed else (0, 8))


def test_no_distance_is_larger_than_the_penalty():
    far = score(cube((0, 0, 0), 1), cube((11, 9, 8), 1))
    assert far.hd95_mm == pytest.approx(math.sqrt(11**2 + 18**2 + 24**2))
    assert far.hd95_mm < DIAGONAL


def test_ignored_voxels_count_nowhere():
    truth, prediction = cube(), cube((2, 2, 3))
    truth[:, :, 4] = 255  # where the prediction goes beyond the truth
    found = score(prediction, truth)
    assert (found.dice, found.hd95_mm) == (pytest.approx(2 * 4 / (8 + 4)), pytest.approx(3))
    assert (found.voxels_true, found.voxels_predicted) == (8, 4)
    truth = torch.full(SHAPE, 255)
    assert math.isnan(score(cube(), truth).dice)
    prediction = cube()
    score(prediction, truth)
    assert prediction.sum() == 8  # left as it was


def test_several_classes_and_types():
    truth = (cube(value=1) + cube((6, 2, 2), value=2)).to(torch.uint8)
    prediction = (cube(value=2) + cube((6, 2, 2), value=2)).to(torch.uint8)
    found = score_case("p", prediction, truth, ("background", "a", "b", "c"), SPACING)
    assert [item.class_name for item in found] == ["a", "b", "c"]
    assert [item.dice for item in found][:2] == [0, pytest.approx(2 * 8 / 24)]
    assert math.isnan(found[2].dice)


def test_without_surface():
    found = score(cube((2, 2, 3)), cube(), surface=False)
    assert found.dice == 0.5
    assert math.isnan(found.hd95_mm)
    assert math.isnan(score(torch.zeros(SHAPE), cube(), surface=False).hd95_mm)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"Expected `prediction` of shape \(12, 10, 9\), but got \(2, 2, 2\)"):
        score(torch.zeros(2, 2, 2), cube())


def random_mask(seed: int, density: float, low=(0, 0, 0), high=SHAPE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(SHAPE, dtype=torch.int64)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    mask[box] = (torch.rand(mask[box].shape, generator=generator) < density).long()
    return mask


@pytest.mark.parametrize("spacing", [SPACING, (0.7, 0.7, 5.0)])
@pytest.mark.parametrize("density", [0.02, 0.4, 0.95])
@pytest.mark.parametrize(
    "box", [((0, 0, 0), SHAPE), ((3, 3, 3), (8, 7, 6)), ((0, 2, 3), (12, 5, 9))], ids=["whole", "inner", "border"]
)
def test_as_monai_on_the_whole_volume(spacing, density, box):
    """The box that distances are computed in changes nothing, at the volume's border neither."""
    prediction, truth = random_mask(1, density, *box), random_mask(2, density, *box)
    truth[5, 4, 4] = prediction[4, 4, 4] = 1
    found = score(prediction, truth, spacing=spacing)
    pair = [volume[None, None].float() for volume in (prediction, truth)]
    assert found.dice == pytest.approx(compute_dice(*pair).item())
    expected = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    assert found.hd95_mm == pytest.approx(expected.item(), rel=1e-5)


def case(subject, name, dice, hd95=math.nan):
    return CaseScore(subject, name, dice, hd95, 1, 1)


def test_means_leave_out_what_has_no_value_and_count_the_rest():
    scores = [
        case("p1", "a", 0.8, 2.0),
        case("p1", "b", math.nan),
        case("p1", "c", math.nan),
        case("p2", "a", 0.4, 4.0),
        case("p2", "b", 0.2),
        case("p2", "c", math.nan),
    ]
    means = class_means(scores, "dice")
    assert means["a"] == ClassMean(pytest.approx(0.6), 2)
    assert means["b"] == ClassMean(pytest.approx(0.2), 1)
    assert math.isnan(means["c"].value)
    assert means["c"].count == 0
    assert overall(means) == pytest.approx(0.4)  # of the two classes, not of the three values
    assert class_means(scores, "hd95_mm")["a"] == ClassMean(pytest.approx(3.0), 2)
    assert overall(class_means(scores, "hd95_mm")) == pytest.approx(3.0)


def test_means_of_nothing():
    assert class_means([], "dice") == {}
    assert math.isnan(overall({}))


def test_regions_are_scored_as_unions():
    # a row of voxels: 0 background, 1 necrosis, 2 oedema, 3 enhancing
    truth = torch.tensor([0, 1, 1, 2, 2, 3, 0, 255]).view(8, 1, 1)
    prediction = torch.tensor([1, 1, 2, 2, 2, 1, 0, 3]).view(8, 1, 1)
    regions = {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
    scores = score_case("p", prediction, truth, ["background", "n", "o", "e"], [1, 1, 1], regions=regions)
    assert [score.class_name for score in scores] == ["whole", "core", "enhancing"]
    # whole: 5 of 6 predicted are right of 5 true; core: voxels 1 and 5 of 3 predicted and 3 true; enhancing: missed
    assert [score.dice for score in scores] == pytest.approx([10 / 11, 4 / 6, 0.0])
    assert [(score.voxels_true, score.voxels_predicted) for score in scores] == [(5, 6), (3, 3), (1, 0)]
