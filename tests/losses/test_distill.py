"""Risk-gated distillation: the divergence and its gate by hand, and what is left out."""

import math

import numpy as np
import pytest
import torch

from riskft.errors import InputError
from riskft.losses.distill import DistilledLoss, gate_scale, gated_divergence
from riskft.losses.weighted import RiskWeightedLoss

IGNORE = 255
JOINT = torch.tensor([[6.0, 2.0], [1.0, 1.0]], dtype=torch.float64)  # P(y) = .8, .2


def batch(seed=0, classes=2, spatial=(5, 4, 3)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *spatial, generator=generator)
    target = torch.randint(0, classes, (2, *spatial), generator=generator)
    return logits, target, torch.randn(2, classes, *spatial, generator=generator).softmax(1)


def started(knowledge=1.0, **options):
    loss = DistilledLoss(**options)
    loss.take_phase_1(JOINT, knowledge)
    return loss


def test_gate_scale_is_the_information_of_the_class():
    assert gate_scale(JOINT).tolist() == pytest.approx([-math.log(0.8), -math.log(0.2)], rel=1e-6)
    rare = gate_scale(torch.tensor([[5.0], [0.0]]))
    assert (rare > 0).all()
    assert rare.isfinite().all()


def test_divergence_by_hand():
    # two voxels, target classes 1 and 0, expected .6 .4 and .9 .1, predicted .5 .5 and .25 .75
    # KL: .6 log 1.2 + .4 log .8 = .020136;  .9 log 3.6 + .1 log .13333 = .951352
    # gate of class 1: exp(-(-log .4) / -log .2) = exp(-.569323) = .565908; of class 0: exp(log .9 / -log .8) = .623652
    logits = torch.tensor([[[0.5, 0.25], [0.5, 0.75]]]).log()
    eep = torch.tensor([[[0.6, 0.9], [0.4, 0.1]]])
    target = torch.tensor([[1, 0]])
    plain = gated_divergence(logits, target, eep, None, IGNORE)
    assert float(plain) == pytest.approx((0.020136 + 0.951352) / 2, rel=1e-4)
    gated = gated_divergence(logits, target, eep, gate_scale(JOINT), IGNORE)
    assert float(gated) == pytest.approx((0.565908 * 0.020136 + 0.623652 * 0.951352) / 2, rel=1e-4)


def test_gate_is_1_over_e_where_the_source_knows_the_prior_alone():
    logits, target, _ = batch()
    eep = torch.tensor([0.8, 0.2]).reshape(1, 2, 1, 1, 1).expand_as(logits)
    plain = gated_divergence(logits, target, eep, None, IGNORE)
    torch.testing.assert_close(gated_divergence(logits, target, eep, gate_scale(JOINT), IGNORE), plain / math.e)


def test_a_teacher_that_is_sure_and_wrong_teaches_nothing():
    logits, target, _ = batch()
    wrong = torch.nn.functional.one_hot(1 - target, 2).movedim(-1, 1).float()
    assert float(gated_divergence(logits, target, wrong, gate_scale(JOINT), IGNORE)) < 1e-6
    right = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float()
    torch.testing.assert_close(
        gated_divergence(logits, target, right, gate_scale(JOINT), IGNORE),
        torch.nn.functional.cross_entropy(logits, target),
    )


def test_factor_0_and_a_teacher_in_agreement_leave_the_loss():
    logits, target, eep = batch()
    weight = torch.rand(target.shape)
    plain = RiskWeightedLoss()(logits, target, weight)
    assert torch.equal(started(factor=0)(logits, target, weight, None, eep), plain)
    torch.testing.assert_close(started(factor=3)(logits, target, weight, None, logits.softmax(1)), plain)


def test_a_source_teaches_by_what_it_knows():
    logits, target, eep = batch()
    plain = RiskWeightedLoss()(logits, target)
    term = {know: started(know)(logits, target, None, None, eep) - plain for know in (0.0, 0.25, 1.0)}
    assert float(term[0.0]) == 0
    torch.testing.assert_close(term[0.25], term[1.0] / 4)
    untempered = started(0.25, temper=False)(logits, target, None, None, eep) - plain
    torch.testing.assert_close(untempered, term[1.0])


def test_terms_add_up_on_the_finest_output():
    logits, target, eep = batch(spatial=(6, 4, 4))
    outputs = [logits, torch.randn(2, 2, 3, 2, 2)]
    inner = RiskWeightedLoss(dice_weight=0.5)
    term = gated_divergence(logits, target, eep, gate_scale(JOINT), IGNORE)
    got = started(loss=inner, factor=2)(outputs, target.unsqueeze(1), None, None, eep)
    torch.testing.assert_close(got, inner(outputs, target) + 2 * term)


def test_gradient_is_gate_times_prediction_minus_eep():
    logits, target, eep = batch()
    logits.requires_grad_(True)
    value = gated_divergence(logits, target, eep, None, IGNORE)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient, (logits.detach().softmax(1) - eep) / target.numel(), atol=1e-6, rtol=0)


def test_eeps_are_scaled_to_mass_1_and_without_mass_nothing_is_distilled():
    logits, target, eep = batch()
    for scale in (0.6, 1.4):
        torch.testing.assert_close(
            gated_divergence(logits, target, scale * eep, gate_scale(JOINT), IGNORE),
            gated_divergence(logits, target, eep, gate_scale(JOINT), IGNORE),
        )
    outside = eep.clone()
    outside[:, :, 2:] = 0
    kept = gated_divergence(logits[:, :, :2], target[:, :2], eep[:, :, :2], gate_scale(JOINT), IGNORE)
    torch.testing.assert_close(gated_divergence(logits, target, outside, gate_scale(JOINT), IGNORE), kept * 2 / 5)
    for filling in (-3.0, 7.0):  # some other padding value of a transform
        outside[:, :, 2:] = filling
        torch.testing.assert_close(gated_divergence(logits, target, outside, gate_scale(JOINT), IGNORE), kept * 2 / 5)


def test_ignored_voxels_are_in_no_sum():
    logits, target, eep = batch()
    target[:, 3:] = IGNORE
    logits.requires_grad_(True)
    value = gated_divergence(logits, target, eep, gate_scale(JOINT), IGNORE)
    (gradient,) = torch.autograd.grad(value, logits)
    assert (gradient[:, :, 3:] == 0).all()
    assert (gradient[:, :, :3] != 0).any()
    rest = gated_divergence(logits[:, :, :3], target[:, :3], eep[:, :, :3], gate_scale(JOINT), IGNORE)
    torch.testing.assert_close(value, rest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_are_finite(dtype):
    logits, target, _ = batch()
    sure = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).to(dtype)
    extreme = (logits.sign() * 1e4).to(dtype).requires_grad_(True)
    loss = started()
    for label in (target, torch.full_like(target, IGNORE)):
        for eep in (sure, 1 - sure, torch.zeros_like(sure)):
            value = loss(extreme, label, None, None, eep)
            (gradient,) = torch.autograd.grad(value, extreme)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert gradient.isfinite().all()


def test_without_phase_1_the_error_says_what_to_do():
    logits, target, eep = batch()
    for loss, given in ((DistilledLoss(), eep), (started(), None)):
        assert loss.needs_eep
        with pytest.raises(InputError, match=r"needs phase 1: add riskft\.RiskMapCallback"):
            loss(logits, target, None, None, given)
    with pytest.raises(ValueError, match="`eep` of the logits"):
        started()(logits, target, None, None, eep[:, :1])
    with pytest.raises(InputError, match="`factor` to be at least 0"):
        DistilledLoss(factor=-1)


def test_it_brings_the_prediction_to_the_teacher():
    logits, target, eep = batch()
    loss = started(loss=RiskWeightedLoss(ce_weight=0, dice_weight=1e-9), factor=1, gated=False)
    found = logits.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([found], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(found, target, None, None, eep).backward()
        optimizer.step()
    np.testing.assert_allclose(found.detach().softmax(1), eep, atol=0.01)
