"""Where patches are taken."""

import pytest
import torch
import torchio as tio

from riskft.data.patches.sampling import BalancedRiskSampling, BalancedSampling, RiskSampling, UniformSampling

SIZE = (3, 3, 3)
SHAPE = (12, 10, 8)


def subject(label: torch.Tensor | None = None, weight: torch.Tensor | None = None) -> tio.Subject:
    if label is None:
        label = torch.zeros(SHAPE)
        label[5:7, 5:7, 4:5] = 1
        label[2:4, 2, 2] = 2
    images = {"image": tio.ScalarImage(tensor=torch.rand(1, *SHAPE)), "label": tio.LabelMap(tensor=label[None])}
    if weight is not None:
        images["weight"] = tio.ScalarImage(tensor=weight[None])
    return tio.Subject(**images)


def centres(sampling, of: tio.Subject, count: int, classes: int = 3) -> list[int]:
    """Returns the class at the centre of each patch."""
    torch.manual_seed(0)
    sampler = sampling.build(SIZE, classes)
    return [int(patch["label"].data[0, 1, 1, 1]) for patch in sampler(of, count)]


@pytest.mark.parametrize("foreground", [0.0, 0.25, 0.67, 1.0])
def test_balanced_sampling_hits_foreground_as_asked(foreground):
    found = torch.tensor(centres(BalancedSampling(foreground), subject(), 400))
    for index in (1, 2):  # though class 1 has twice as many voxels
        assert (found == index).float().mean().item() == pytest.approx(foreground / 2, abs=0.07)
    assert (found == 0).float().mean().item() == pytest.approx(1 - foreground, abs=0.07)


def test_balanced_sampling_without_foreground():
    assert centres(BalancedSampling(1.0), subject(torch.zeros(SHAPE)), 5) == [0] * 5


def test_balanced_sampling_never_centres_on_ignored_voxels():
    label = torch.full(SHAPE, 255.0)
    label[6, 5, 4] = 1
    label[3:5, 3, 3] = 0
    assert set(centres(BalancedSampling(0.5), subject(label), 50, classes=2)) == {0, 1}


@pytest.mark.parametrize("foreground", [-0.1, 1.1])
def test_balanced_sampling_wants_a_probability(foreground):
    with pytest.raises(ValueError, match=r"Expected argument `foreground` to be in \[0, 1\], but got"):
        BalancedSampling(foreground)


def test_uniform_sampling_is_anywhere():
    sampler = UniformSampling().build(SIZE, 3)
    torch.manual_seed(0)
    corners = torch.stack([patch[tio.LOCATION][:3] for patch in sampler(subject(), 300)])
    assert corners.amin(0).tolist() == [0, 0, 0]
    assert corners.amax(0).tolist() == [9, 7, 5]


def test_risk_sampling_follows_the_map():
    risk = torch.zeros(SHAPE)
    risk[5, 5, 4] = 1.0  # class 1
    risk[2, 2, 2] = 3.0  # class 2
    found = torch.tensor(centres(RiskSampling(), subject(weight=risk), 400))
    assert (found == 2).float().mean().item() == pytest.approx(0.75, abs=0.07)
    assert (found == 1).float().mean().item() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("foreground", [0.3, 0.67])
def test_balanced_risk_sampling_keeps_the_classes_shares_and_follows_the_map_inside(foreground):
    risk = torch.ones(SHAPE)
    risk[5, 5, 4] = 5.0  # of the four voxels of class 1: 5 of 8
    of = subject(weight=risk)
    torch.manual_seed(0)
    sampler = BalancedRiskSampling(foreground).build(SIZE, 3)
    patches = list(sampler(of, 600))
    found = torch.tensor([int(patch["label"].data[0, 1, 1, 1]) for patch in patches])
    for index in (1, 2):
        assert (found == index).float().mean().item() == pytest.approx(foreground / 2, abs=0.07)
    high = torch.tensor([float(patch["weight"].data[0, 1, 1, 1]) == 5 for patch in patches])
    assert (high[found == 1]).float().mean().item() == pytest.approx(5 / 8, abs=0.1)


def test_balanced_risk_sampling_with_even_weights_is_balanced_sampling():
    of = subject(weight=torch.full(SHAPE, 3.0))
    both = [
        sampling.build(SIZE, 3).get_probability_map(of) for sampling in (BalancedRiskSampling(), BalancedSampling())
    ]
    torch.testing.assert_close(*both)


def test_balanced_risk_sampling_without_foreground_and_with_a_map_of_zeros():
    blank = subject(torch.zeros(SHAPE), weight=torch.zeros(SHAPE))
    assert centres(BalancedRiskSampling(1.0), blank, 5) == [0] * 5


def test_which_samplings_need_a_map():
    assert RiskSampling().needs_risk
    assert BalancedRiskSampling().needs_risk
    assert not BalancedSampling().needs_risk
    assert not UniformSampling().needs_risk


@pytest.mark.parametrize("sampling", [BalancedSampling(), UniformSampling(), RiskSampling()])
def test_patches_have_the_size_asked_for(sampling):
    (patch,) = sampling.build((4, 3, 2), 3)(subject(weight=torch.ones(SHAPE)), 1)
    assert patch["image"].spatial_shape == patch["label"].spatial_shape == (4, 3, 2)


# -- volumes in which no voxel of a class can be a patch's centre ------------------------------------------------------


def starts(sampling, of: tio.Subject, size: tuple[int, int, int], count: int, classes: int = 2) -> list[list[int]]:
    torch.manual_seed(0)
    return [patch[tio.LOCATION][:3].tolist() for patch in sampling.build(size, classes)(of, count)]


EVERY = [BalancedSampling(), UniformSampling(), RiskSampling(), BalancedRiskSampling()]


@pytest.mark.parametrize("sampling", [BalancedSampling(1.0), BalancedRiskSampling(1.0), RiskSampling()])
def test_annotation_at_the_edge_is_taken_as_near_as_a_patch_fits(sampling):
    label = torch.full(SHAPE, 255.0)
    label[11, 4, 0] = 1  # with 6 voxels along each axis, a patch starts at 0..6, 0..4, 0..2
    of = subject(label, torch.ones(SHAPE))
    assert starts(sampling, of, (6, 6, 6), 3) == [[6, 1, 0]] * 3


def test_a_class_at_the_edge_keeps_its_share_beside_one_that_is_inside():
    label = torch.zeros(SHAPE)
    label[5:7, 5:7, 4] = 1
    label[0, 0, 0] = 2
    torch.manual_seed(0)
    patches = list(BalancedSampling(0.8).build((6, 6, 6), 3)(subject(label), 400))
    found = torch.tensor([bool((patch["label"].data == 2).any()) for patch in patches])
    corner = torch.tensor([patch[tio.LOCATION][:3].tolist() == [0, 0, 0] for patch in patches])
    assert found[corner].all()
    assert corner.float().mean().item() == pytest.approx(0.4, abs=0.07)


@pytest.mark.parametrize("sampling", EVERY)
@pytest.mark.parametrize("value", [0.0, 1.0, 255.0])
def test_a_volume_of_the_patch_s_size_gives_itself(sampling, value):
    of = subject(torch.full(SHAPE, value), torch.ones(SHAPE))
    assert starts(sampling, of, SHAPE, 2) == [[0, 0, 0]] * 2


@pytest.mark.parametrize("sampling", EVERY)
def test_a_volume_without_a_voxel_that_counts_gives_patches_from_anywhere(sampling):
    found = torch.tensor(starts(sampling, subject(torch.full(SHAPE, 255.0), torch.ones(SHAPE)), (4, 4, 4), 200))
    assert found.amin(0).tolist() == [0, 0, 0]
    assert found.amax(0).tolist() == [8, 6, 4]


def test_risk_sampling_leaves_ignored_voxels_out():
    label = torch.full(SHAPE, 255.0)
    label[6, 5, 4] = 0
    assert centres(RiskSampling(), subject(label, torch.ones(SHAPE)), 5, classes=2) == [0] * 5


@pytest.mark.parametrize("sampling", [RiskSampling(), BalancedRiskSampling(0.5)])
def test_negative_weights_of_a_spline_are_no_error(sampling):
    risk = torch.ones(SHAPE)
    risk[4:7] = -0.25
    assert len(centres(sampling, subject(weight=risk), 5)) == 5


@pytest.mark.parametrize("size", [(3, 3, 3), (4, 2, 5)])
def test_volumes_that_torchio_can_sample_are_sampled_as_torchio_does(size):
    of = subject(weight=torch.rand(SHAPE) + 0.1)
    ours = BalancedSampling(0.6).build(size, 3)
    theirs = tio.LabelSampler(size, "label", {0: 0.4, 1: 0.3, 2: 0.3})
    weighted = tio.WeightedSampler(size, "weight")
    for one, other in ((ours, theirs), (RiskSampling().build(size, 3), weighted)):
        expected = other.process_probability_map(other.get_probability_map(of), of)
        assert (one.process_probability_map(one.get_probability_map(of), of) == expected).all()
