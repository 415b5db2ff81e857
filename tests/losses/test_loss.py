"""The map-weighted loss: numbers by hand, identities with other losses, and no NaN."""

import math
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss
from torch import Tensor

from riskft.losses.weighted import RiskWeightedLoss

IGNORE = 255


def logits_of(true: list[list[float]], target: Tensor) -> Tensor:
    """Two-class logits (B, 2, N) that give the true class of each voxel the stated probability."""
    odds = torch.tensor(true, dtype=torch.float64).logit()
    sign = torch.where(target == 1, 1.0, -1.0)
    return torch.stack([torch.zeros_like(odds), odds * sign], 1).float()


def random_batch(
    classes: int = 3, spatial: tuple[int, ...] = (6, 5, 4), seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *spatial, generator=generator)
    target = torch.randint(0, classes, (2, *spatial), generator=generator)
    return logits, target, torch.rand(2, *spatial, generator=generator) * 3


def cross_entropy_only(**options: Any) -> RiskWeightedLoss:
    return RiskWeightedLoss(dice_weight=0, **options)


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("divisor", "expected"),
    [
        ("foreground", (5.967748 / 1 + 2.384229 / 3) / 2),  # 1 and 3 foreground voxels
        ("voxels", (5.967748 / 4 + 2.384229 / 4) / 2),
    ],
)
def test_two_samples_by_hand(divisor: str, expected: float) -> None:
    target = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]])
    weight = torch.tensor([[1.0, 2.0, 0.0, 3.0], [1.0, 1.0, 0.5, 4.0]])
    logits = logits_of([[0.5, 0.8, 0.9, 0.2], [0.9, 0.5, 0.25, 0.8]], target)
    # sample 0: -(log .5 + 2 log .8 + 0 + 3 log .2)     = .693147 + .446287 + 4.828314 = 5.967748
    # sample 1: -(log .9 + log .5 + .5 log .25 + 4 log .8) = .105361 + .693147 + .693147 + .892574 = 2.384229
    loss = cross_entropy_only(divisor=divisor)(logits, target, weight)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_dice_by_hand() -> None:
    # one sample, true classes 0 0 1, predicted foreground .2 .5 .75
    # background: 2 (.8 + .5) / (.8 + .5 + .25 + 2) = .732394; foreground: 2 (.75) / (1.45 + 1) = .612245
    target = torch.tensor([[0, 0, 1]])
    logits = logits_of([[0.8, 0.5, 0.75]], target)
    expected = 1 - (0.732394 + 0.612245) / 2
    assert float(RiskWeightedLoss(ce_weight=0)(logits, target)) == pytest.approx(expected, abs=1e-5)
    loss = RiskWeightedLoss(ce_weight=0, dice_weight=2)(logits, target, torch.full((1, 3), 7.0))
    assert float(loss) == pytest.approx(2 * expected, abs=2e-5)


def test_terms_add_up() -> None:
    logits, target, weight = random_batch()
    entropy = cross_entropy_only()(logits, target, weight)
    dice = RiskWeightedLoss(ce_weight=0)(logits, target, weight)
    both = RiskWeightedLoss(ce_weight=0.25, dice_weight=3)(logits, target, weight)
    torch.testing.assert_close(both, 0.25 * entropy + 3 * dice)


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("spatial", [(6, 5), (6, 5, 4)])
def test_is_monai_dice_ce_without_weights(channel: bool, classes: int, spatial: tuple[int, ...]) -> None:
    logits, target, _ = random_batch(classes, spatial)
    expected = DiceCELoss(softmax=True, to_onehot_y=True)(logits, target.unsqueeze(1))
    got = RiskWeightedLoss()(logits, target.unsqueeze(1) if channel else target)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_is_torch_cross_entropy_without_weights() -> None:
    logits, target, _ = random_batch()
    torch.testing.assert_close(cross_entropy_only()(logits, target), torch.nn.functional.cross_entropy(logits, target))


@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
def test_no_weight_is_weight_one_and_weight_two_is_twice_the_cross_entropy(divisor: str) -> None:
    logits, target, weight = random_batch()
    loss = cross_entropy_only(divisor=divisor)
    one = loss(logits, target, torch.ones_like(weight))
    torch.testing.assert_close(loss(logits, target), one)
    torch.testing.assert_close(loss(logits, target, torch.full_like(weight, 2)), 2 * one)
    full = RiskWeightedLoss(divisor=divisor)  # type: ignore[arg-type]
    torch.testing.assert_close(full(logits, target, torch.full_like(weight, 2)) - full(logits, target), one)


def test_weights_are_read_voxel_by_voxel() -> None:
    logits, target, weight = random_batch()
    entropy = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(cross_entropy_only()(logits, target, weight.unsqueeze(1)), (entropy * weight).mean())


# -- the divisor ------------------------------------------------------------------------------------------------------


def even(target: Tensor) -> Tensor:
    """Logits that make CE log 2 everywhere."""
    return torch.zeros(target.shape[0], 2, *target.shape[1:])


@pytest.mark.parametrize(
    ("fraction", "divisor"),
    [
        (0.05, 50),  # 5 % of 1000 voxels
        (0.0, 1),  # at least min_foreground, 1e-3 of 1000
        (None, 1),
        (1e-6, 1),
    ],
)
def test_patch_without_foreground(fraction: float | None, divisor: float) -> None:
    target = torch.zeros(1, 10, 10, 10, dtype=torch.long)
    given = None if fraction is None else torch.tensor([fraction])
    loss = cross_entropy_only(divisor="foreground")(even(target), target, None, given)
    assert float(loss) == pytest.approx(1000 * math.log(2) / divisor, rel=1e-5)


def test_patch_with_foreground_does_not_look_at_the_volumes_fraction() -> None:
    target = torch.zeros(1, 10, 10, 10, dtype=torch.long)
    target[0, :2] = 1
    loss = cross_entropy_only(divisor="foreground")(even(target), target, None, torch.tensor([0.9]))
    assert float(loss) == pytest.approx(1000 * math.log(2) / 200, rel=1e-5)


def test_fraction_is_taken_sample_by_sample() -> None:
    target = torch.zeros(2, 10, 10, dtype=torch.long)
    target[0, 0, :5] = 1
    loss = cross_entropy_only(divisor="foreground")(even(target), target, None, torch.tensor([0.5, 0.1]))
    assert float(loss) == pytest.approx(100 * math.log(2) * (1 / 5 + 1 / 10) / 2, rel=1e-5)


@pytest.mark.parametrize(("least", "divisor"), [(1e-3, 10), (0.1, 1000), (1e-6, 3)])
def test_few_foreground_voxels_are_bounded(least: float, divisor: float) -> None:
    target = torch.zeros(1, 100, 100, dtype=torch.long)
    target[0, 50, 50:53] = 1
    loss = cross_entropy_only(divisor="foreground", min_foreground=least)(even(target), target)
    assert float(loss) == pytest.approx(10000 * math.log(2) / divisor, rel=1e-5)


@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
def test_ignored_voxels_do_not_count_in_the_divisor(divisor: str) -> None:
    target = torch.tensor([[0, 0, 1, 1, IGNORE, IGNORE, IGNORE, 0]])
    loss = cross_entropy_only(divisor=divisor)(even(target), target)
    assert float(loss) == pytest.approx(5 * math.log(2) / (2 if divisor == "foreground" else 5), rel=1e-6)


# -- ignored voxels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
@pytest.mark.parametrize("ignore", [IGNORE, -1, 1])
def test_ignored_voxels_are_in_no_sum_and_get_no_gradient(divisor: str, ignore: int) -> None:
    logits, target, weight = random_batch()
    ignored = torch.zeros_like(target, dtype=torch.bool)
    ignored[:, 2:4, 1:] = True
    target = target.masked_fill(target == ignore, 0).masked_fill(ignored, ignore)
    loss = RiskWeightedLoss(divisor=divisor, ignore_index=ignore)  # type: ignore[arg-type]
    logits.requires_grad_(True)
    before = loss(logits, target, weight)
    before.backward()
    assert logits.grad is not None
    hidden = ignored.unsqueeze(1).expand_as(logits)
    assert bool((logits.grad[hidden] == 0).all())
    assert bool((logits.grad[~hidden] != 0).all())
    changed = torch.where(hidden, logits.detach() * -50 + 3, logits.detach())
    torch.testing.assert_close(loss(changed, target, weight.masked_fill(ignored, 1e6)), before.detach())


def test_ignored_voxels_leave_the_loss_of_the_rest() -> None:
    logits, target, weight = random_batch(spatial=(8, 5, 4))
    partly = target.clone()
    partly[:, 5:] = IGNORE
    loss = RiskWeightedLoss(divisor="foreground")
    torch.testing.assert_close(loss(logits, partly, weight), loss(logits[:, :, :5], target[:, :5], weight[:, :5]))


@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
def test_nothing_but_ignored_voxels(divisor: str) -> None:
    logits, target, weight = random_batch()
    logits.requires_grad_(True)
    loss = RiskWeightedLoss(divisor=divisor)  # type: ignore[arg-type]
    value = loss(logits, torch.full_like(target, IGNORE), weight, torch.tensor([0.1, 0.2]))
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    value.backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0


# -- deep supervision -------------------------------------------------------------------------------------------------


def test_one_output_in_a_list_is_the_output() -> None:
    logits, target, weight = random_batch()
    loss = RiskWeightedLoss()
    torch.testing.assert_close(loss([logits], target, weight), loss(logits, target, weight))


def test_coarser_output_by_hand() -> None:
    # fine: 4 voxels with CE log 2 and weights 1 3 5 7 -> mean w CE = 4 log 2
    # coarse: 2 voxels, target sampled at fine voxels 1 and 3 (0 and 1), weights averaged to 2 and 6; the true class has
    # probability .75 and .25 -> (2 (-log .75) + 6 (-log .25)) / 2 = (.575364 + 8.317766) / 2 = 4.446565
    target = torch.tensor([[0, 0, 1, 1]])
    weight = torch.tensor([[1.0, 3.0, 5.0, 7.0]])
    coarse = logits_of([[0.75, 0.25]], torch.tensor([[0, 1]]))
    loss = cross_entropy_only()([even(target), coarse], target, weight)
    assert float(loss) == pytest.approx((4 * math.log(2) + 0.5 * 4.446565) / 1.5, rel=1e-6)
    steeper = cross_entropy_only(deep_supervision_decay=0.25)([even(target), coarse], target, weight)
    assert float(steeper) == pytest.approx((4 * math.log(2) + 0.25 * 4.446565) / 1.25, rel=1e-6)


@pytest.mark.parametrize("channel", [False, True])
def test_deep_supervision_is_the_weighted_mean_of_levels(channel: bool) -> None:
    logits, target, weight = random_batch(spatial=(8, 6, 4))
    levels = [logits, torch.randn(2, 3, 4, 3, 2), torch.randn(2, 3, 2, 2, 1)]
    target[0, :4] = IGNORE
    given = (target.unsqueeze(1), weight.unsqueeze(1)) if channel else (target, weight)
    loss = RiskWeightedLoss(divisor="foreground")
    fraction = torch.tensor([0.2, 0.3])
    parts = [loss(logits, target, weight, fraction)]
    for level in levels[1:]:
        size = level.shape[2:]
        small = torch.nn.functional.interpolate(target[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
        mean = torch.nn.functional.adaptive_avg_pool3d(weight[:, None], size)[:, 0]
        assert set(small.unique().tolist()) <= {0, 1, 2, IGNORE}
        parts.append(loss(level, small, mean, fraction))
    expected = (parts[0] + 0.5 * parts[1] + 0.25 * parts[2]) / 1.75
    torch.testing.assert_close(loss(levels, *given, fraction), expected)


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("divisor", ["foreground", "voxels"])
def test_extreme_logits_give_finite_losses_and_gradients(dtype: torch.dtype, divisor: str) -> None:
    logits, target, weight = random_batch()
    extreme = (logits.sign() * 1e4).to(dtype).requires_grad_(True)
    loss = RiskWeightedLoss(divisor=divisor)  # type: ignore[arg-type]
    value = loss(extreme, target, weight.to(dtype) * 10, torch.tensor([0.1, 0.1]))
    value.backward()
    assert value.dtype == torch.float32
    assert bool(value.isfinite())
    assert float(value.detach()) > 1000
    assert extreme.grad is not None
    assert extreme.grad.dtype == dtype
    assert bool(extreme.grad.isfinite().all())
    assert float(extreme.grad.abs().max()) > 0


def test_sums_are_not_in_half_precision() -> None:
    # 70,000 voxels with w CE = 10 log 2: their sum is beyond float16's largest number
    target = torch.zeros(1, 70, 1000, dtype=torch.long)
    target[0, 0] = 1
    logits = even(target).half()
    loss = cross_entropy_only(divisor="foreground")(logits, target, torch.full(target.shape, 10.0).half())
    assert float(loss) == pytest.approx(70 * 10 * math.log(2), rel=1e-5)


def test_inside_autocast() -> None:
    logits, target, weight = random_batch()
    loss = RiskWeightedLoss()
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, target, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target, weight))


def test_gradient_points_down() -> None:
    logits, target, weight = random_batch()
    loss = RiskWeightedLoss()
    logits.requires_grad_(True)
    before = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(before, logits)
    assert bool(loss(logits - gradient, target, weight) < before)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("target", "weight", "name"),
    [
        ((2, 6, 5, 3), None, "target"),
        ((1, 6, 5, 4), None, "target"),
        ((2, 2, 6, 5, 4), None, "target"),
        ((2, 6, 5), None, "target"),
        ((2, 6, 5, 4), (2, 6, 5), "weight"),
        ((2, 6, 5, 4), (2, 3, 6, 5, 4), "weight"),
        ((2, 1, 6, 5, 4), (1, 6, 5, 4), "weight"),
    ],
)
def test_shapes_that_disagree(deep: bool, target: tuple[int, ...], weight: tuple[int, ...] | None, name: str) -> None:
    logits = torch.randn(2, 3, 6, 5, 4)
    outputs = [logits, torch.randn(2, 3, 3, 3, 2)] if deep else logits
    given = None if weight is None else torch.ones(weight)
    with pytest.raises(ValueError, match=rf"Expected `{name}` of shape \(2, 6, 5, 4\) for logits \(2, 3, 6, 5, 4\)"):
        RiskWeightedLoss()(outputs, torch.zeros(target, dtype=torch.long), given)


def test_no_output_at_all() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RiskWeightedLoss()([], torch.zeros(2, 6, 5, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divisor": "batch"}, "`divisor` to be 'foreground' or 'voxels', but got 'batch'"),
        ({"dice_weight": -1}, "at least 0 and not both 0"),
        ({"ce_weight": -1}, "at least 0 and not both 0"),
        ({"dice_weight": 0, "ce_weight": 0}, "at least 0 and not both 0"),
        ({"min_foreground": 0}, "`min_foreground` to be in"),
        ({"min_foreground": 1.5}, "`min_foreground` to be in"),
        ({"deep_supervision_decay": -1}, "`deep_supervision_decay` to be at least 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RiskWeightedLoss(**options)
