"""Where patches are taken."""

import pytest
import torch
import torchio as tio

from riskft.data.sampling import BalancedRiskSampling, BalancedSampling, RiskSampling, UniformSampling

SIZE = (3, 3, 3)
SHAPE = (12, 10, 8)


def subject(label: torch.Tensor | None = None, risk: torch.Tensor | None = None) -> tio.Subject:
    if label is None:
        label = torch.zeros(SHAPE)
        label[5:7, 5:7, 4:5] = 1
        label[2:4, 2, 2] = 2
    images = {"image": tio.ScalarImage(tensor=torch.rand(1, *SHAPE)), "label": tio.LabelMap(tensor=label[None])}
    if risk is not None:
        images["risk"] = tio.ScalarImage(tensor=risk[None])
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
    found = torch.tensor(centres(RiskSampling(), subject(risk=risk), 400))
    assert (found == 2).float().mean().item() == pytest.approx(0.75, abs=0.07)
    assert (found == 1).float().mean().item() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("foreground", [0.3, 0.67])
def test_balanced_risk_sampling_keeps_the_classes_shares_and_follows_the_map_inside(foreground):
    risk = torch.ones(SHAPE)
    risk[5, 5, 4] = 5.0  # of the four voxels of class 1: 5 of 8
    of = subject(risk=risk)
    torch.manual_seed(0)
    sampler = BalancedRiskSampling(foreground).build(SIZE, 3)
    patches = list(sampler(of, 600))
    found = torch.tensor([int(patch["label"].data[0, 1, 1, 1]) for patch in patches])
    for index in (1, 2):
        assert (found == index).float().mean().item() == pytest.approx(foreground / 2, abs=0.07)
    high = torch.tensor([float(patch["risk"].data[0, 1, 1, 1]) == 5 for patch in patches])
    assert (high[found == 1]).float().mean().item() == pytest.approx(5 / 8, abs=0.1)


def test_balanced_risk_sampling_with_even_weights_is_balanced_sampling():
    of = subject(risk=torch.full(SHAPE, 3.0))
    both = [
        sampling.build(SIZE, 3).get_probability_map(of) for sampling in (BalancedRiskSampling(), BalancedSampling())
    ]
    torch.testing.assert_close(*both)


def test_balanced_risk_sampling_without_foreground_and_with_a_map_of_zeros():
    blank = subject(torch.zeros(SHAPE), risk=torch.zeros(SHAPE))
    assert centres(BalancedRiskSampling(1.0), blank, 5) == [0] * 5


def test_who_needs_a_map():
    assert RiskSampling().needs_risk
    assert BalancedRiskSampling().needs_risk
    assert not BalancedSampling().needs_risk
    assert not UniformSampling().needs_risk


@pytest.mark.parametrize("sampling", [BalancedSampling(), UniformSampling(), RiskSampling()])
def test_patches_have_the_size_asked_for(sampling):
    (patch,) = sampling.build((4, 3, 2), 3)(subject(risk=torch.ones(SHAPE)), 1)
    assert patch["image"].spatial_shape == patch["label"].spatial_shape == (4, 3, 2)
