"""Focal and top-k losses: numbers by hand, and what they are at the ends of their options."""

import math

import pytest
import torch
from monai.losses import FocalLoss as MonaiFocalLoss

from riskft.errors import InputError
from riskft.losses.hard_voxels import FocalLoss, TopKLoss
from riskft.losses.weighted import RiskWeightedLoss

IGNORE = 255


def batch(seed=0, classes=3, spatial=(6, 5, 4)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *spatial, generator=generator)
    target = torch.randint(0, classes, (2, *spatial), generator=generator)
    return logits, target, torch.rand(2, *spatial, generator=generator) * 3


def even(*true):
    """Two-class logits (1, 2, N) of voxels of class 1 with the stated probabilities."""
    odds = torch.tensor([true], dtype=torch.float64).logit().float()
    return torch.stack([torch.zeros_like(odds), odds], 1), torch.ones(1, len(true), dtype=torch.long)


# -- focal ------------------------------------------------------------------------------------------------------------


def test_focal_by_hand():
    # (1 - .5)^2 log 2 = .173287; (1 - .8)^2 (-log .8) = .008926; (1 - .1)^2 (-log .1) = 1.865094
    logits, target = even(0.5, 0.8, 0.1)
    loss = FocalLoss(gamma=2, dice_weight=0)
    assert float(loss(logits, target)) == pytest.approx((0.173287 + 0.008926 + 1.865094) / 3, rel=1e-5)
    weight = torch.tensor([[1.0, 10.0, 0.0]])
    assert float(loss(logits, target, weight)) == pytest.approx((0.173287 + 0.08926) / 3, rel=1e-4)


def test_focal_is_monai_s_and_gamma_0_is_cross_entropy():
    logits, target, weight = batch()
    expected = MonaiFocalLoss(gamma=2, use_softmax=True, to_onehot_y=True)(logits, target.unsqueeze(1))
    # MONAI's mean is over classes too, of which one has a term
    torch.testing.assert_close(FocalLoss(gamma=2, dice_weight=0)(logits, target), 3 * expected)
    for options in ({"dice_weight": 0}, {"divisor": "foreground", "dice_weight": 2}):
        plain = RiskWeightedLoss(**options)(logits, target, weight)
        torch.testing.assert_close(FocalLoss(gamma=0, **options)(logits, target, weight), plain)


@pytest.mark.parametrize("gamma", [-1, 0.5])
def test_focal_wants_a_gamma_with_a_finite_gradient(gamma):
    with pytest.raises(InputError, match="`gamma` to be 0 or at least 1"):
        FocalLoss(gamma)


# -- top-k ------------------------------------------------------------------------------------------------------------


def test_top_k_by_hand():
    # -log p: .693147, .223144, 2.302585, 1.203973; half of four voxels: the last two
    logits, target = even(0.5, 0.8, 0.1, 0.3)
    loss = TopKLoss(0.5, dice_weight=0)
    assert float(loss(logits, target)) == pytest.approx((2.302585 + 1.203973) / 2, rel=1e-5)
    # a fifth of four is at least one; with weights the first is the worst
    assert float(TopKLoss(0.2, dice_weight=0)(logits, target)) == pytest.approx(2.302585, rel=1e-5)
    weight = torch.tensor([[5.0, 1.0, 1.0, 1.0]])
    assert float(TopKLoss(0.2, dice_weight=0)(logits, target, weight)) == pytest.approx(5 * 0.693147, rel=1e-5)


def test_top_k_is_taken_sample_by_sample_of_the_voxels_that_count():
    logits, target = even(0.5, 0.8, 0.1, 0.3, 0.9, 0.2)
    target[0, 2:4] = IGNORE  # four are left: the worst half of them are .2 and .5
    both = torch.cat([logits, logits.flip(2)]), torch.cat([target, torch.ones_like(target)])
    # the other sample counts six: .1, .2 and .3
    expected = ((1.609438 + 0.693147) / 2 + (2.302585 + 1.609438 + 1.203973) / 3) / 2
    assert float(TopKLoss(0.5, dice_weight=0)(*both)) == pytest.approx(expected, rel=1e-5)


def test_top_k_of_all_is_the_mean():
    logits, target, weight = batch()
    target[0, :2] = IGNORE
    for given in (None, weight):
        plain = RiskWeightedLoss()(logits, target, given)
        torch.testing.assert_close(TopKLoss(1.0)(logits, target, given), plain)


@pytest.mark.parametrize("share", [0, 1.1])
def test_top_k_wants_a_share(share):
    with pytest.raises(InputError, match="`share` to be in"):
        TopKLoss(share)


def test_top_k_has_no_foreground_normalisation():
    with pytest.raises(InputError, match="set divisor to 'voxels'"):
        TopKLoss(divisor="foreground")


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [FocalLoss(), TopKLoss(), RiskWeightedLoss()])
def test_nothing_but_ignored_voxels_and_extreme_logits(loss):
    logits, target, weight = batch()
    logits = (logits.sign() * 1e4).bfloat16().requires_grad_(True)
    value = loss(logits, torch.full_like(target, IGNORE), weight)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("make", [FocalLoss, TopKLoss])
def test_deep_supervision(make):
    logits, target, weight = batch(spatial=(8, 6, 4))
    coarse = torch.randn(2, 3, 4, 3, 2)
    loss = make()
    small = target[:, 1::2, 1::2, 1::2]
    mean = torch.nn.functional.adaptive_avg_pool3d(weight[:, None], (4, 3, 2))[:, 0]
    expected = (loss(logits, target, weight) + 0.5 * loss(coarse, small, mean)) / 1.5
    torch.testing.assert_close(loss([logits, coarse], target, weight), expected)


def test_a_map_that_only_guides_sampling():
    logits, target, weight = batch()
    loss = RiskWeightedLoss(use_map=False)
    assert torch.equal(loss(logits, target, weight), RiskWeightedLoss()(logits, target))
    assert math.isfinite(float(loss([logits], target, weight)))
