"""LEEP: the published formula, checked against hand-computed numbers, its invariants and a loop in numpy."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from riskft.risk.leep import (
    MIN_PROBABILITY,
    LeepConditional,
    _product_mass,
    class_prior,
    conditional_from_joint,
    expected_empirical_prediction,
    hardness,
    joint_mass,
    label_entropy,
)

IGNORE = 255
Array = np.ndarray[Any, np.dtype[Any]]

# four voxels, (1, Z=2, 4), of a hand-computed example
VECTOR_PROBS = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]], dtype=torch.float64).T[None]
VECTOR_TARGET = torch.tensor([[0, 0, 1, 1]])


def volumes(seed: int = 0, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Random volumes with |Z| = 3 and |Y| = 5, an ignored region, and a source class without mass."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(batch, 3, 6, 5, 4, generator=generator, dtype=torch.float64)
    probs[:, 1] = 0
    probs = probs / probs.sum(1, keepdim=True)
    target = torch.randint(0, 5, (batch, 6, 5, 4), generator=generator)
    target[:, 2:4, 1:3] = IGNORE
    return probs, target


def oracle(probs: Array, target: Array, num_target: int) -> tuple[Array, Array, Array, float]:
    """Joint (sum 1), P(y|z), hardness and LEEP by plain loops over voxels."""
    num_source = probs.shape[1]
    joint = np.zeros((num_target, num_source))
    voxels = [index for index in np.ndindex(target.shape) if target[index] != IGNORE]
    for b, x, y, z in voxels:
        for source in range(num_source):
            joint[target[b, x, y, z], source] += probs[b, source, x, y, z]
    joint /= len(voxels)
    conditional = np.zeros_like(joint)
    for source in range(num_source):
        mass = sum(joint[label, source] for label in range(num_target))
        for label in range(num_target):
            conditional[label, source] = joint[label, source] / mass if mass > 0 else joint[label].sum()
    hard = np.zeros(target.shape)
    total = 0.0
    for b, x, y, z in voxels:
        label = target[b, x, y, z]
        likelihood = sum(conditional[label, source] * probs[b, source, x, y, z] for source in range(num_source))
        hard[b, x, y, z] = -math.log(likelihood)
        total += math.log(likelihood)
    return joint, conditional, hard, total / len(voxels)


def leep(probs: Tensor, target: Tensor, num_target: int) -> float:
    conditional = conditional_from_joint(joint_mass(probs, target, num_target))
    return -float(hardness(probs, target, conditional).double().mean())


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_vector() -> None:
    joint = joint_mass(VECTOR_PROBS, VECTOR_TARGET, 2)
    conditional = conditional_from_joint(joint)
    torch.testing.assert_close(joint / 4, torch.tensor([[0.425, 0.075], [0.175, 0.325]], dtype=torch.float64))
    expected = torch.tensor([[0.708333, 0.1875], [0.291667, 0.8125]], dtype=torch.float64)
    torch.testing.assert_close(conditional, expected, atol=1e-6, rtol=0)
    hard = hardness(VECTOR_PROBS, VECTOR_TARGET, conditional)
    true = torch.tensor([[0.65625, 0.604167, 0.65625, 0.604167]])
    torch.testing.assert_close((-hard).exp(), true, atol=1e-6, rtol=0)
    assert -float(hard.mean()) == pytest.approx(-0.462559, abs=1e-6)


def test_matches_a_loop_over_voxels() -> None:
    probs, target = volumes()
    joint, conditional, hard, score = oracle(probs.numpy(), target.numpy(), 5)
    mass = joint_mass(probs, target, 5, IGNORE)
    counted = target != IGNORE
    assert float(mass.sum()) == pytest.approx(int(counted.sum()), rel=1e-12)
    np.testing.assert_allclose(mass.numpy() / int(counted.sum()), joint, rtol=1e-12)
    own = conditional_from_joint(mass)
    np.testing.assert_allclose(own.numpy(), conditional, rtol=1e-12)
    got = hardness(probs, target, own, IGNORE)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), hard, rtol=1e-6)
    assert bool((got[~counted] == 0).all())
    assert -float(got[counted].double().mean()) == pytest.approx(score, rel=1e-6)


def test_metric_matches_a_loop_over_voxels_and_is_its_functional_form() -> None:
    probs, target = volumes(seed=4)
    metric = LeepConditional(3, 5, IGNORE)
    metric.update(probs, target)
    np.testing.assert_allclose(metric.compute().numpy(), oracle(probs.numpy(), target.numpy(), 5)[1], rtol=1e-12)
    assert torch.equal(metric.joint, joint_mass(probs, target, 5, IGNORE))


# -- invariants -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_eep_sums_to_one(seed: int) -> None:
    probs, target = volumes(seed)
    conditional = conditional_from_joint(joint_mass(probs, target, 5, IGNORE))
    torch.testing.assert_close(conditional.sum(0), torch.ones(3, dtype=torch.float64))
    expected = expected_empirical_prediction(probs, conditional)
    assert expected.shape == (3, 5, 6, 5, 4)
    torch.testing.assert_close(expected.sum(1), torch.ones(3, 6, 5, 4, dtype=torch.float64))


def test_hardness_is_minus_log_of_the_eep_of_the_true_label() -> None:
    probs, target = volumes(seed=7)
    conditional = conditional_from_joint(joint_mass(probs, target, 5, IGNORE))
    index = target.masked_fill(target == IGNORE, 0)
    true = expected_empirical_prediction(probs, conditional).gather(1, index[:, None])[:, 0]
    counted = target != IGNORE
    got = hardness(probs, target, conditional, IGNORE)
    torch.testing.assert_close(got[counted], -true[counted].log().float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_perfect_source_in_any_channel_order_gives_zero(order: list[int]) -> None:
    target = torch.tensor([[0, 0, 1, 2, 2, 1, 0]])
    probs = torch.nn.functional.one_hot(torch.tensor(order)[target], 3).movedim(-1, 1).double()
    hard = hardness(probs, target, conditional_from_joint(joint_mass(probs, target, 3)))
    assert bool((hard == 0).all())


@pytest.mark.parametrize("constant", [(0.3, 0.7), (0.2, 0.5, 0.3), (1.0,)])
def test_constant_source_gives_minus_the_labels_entropy(constant: tuple[float, ...]) -> None:
    target = torch.tensor([[0] * 7 + [1] * 3])
    probs = torch.tensor(constant, dtype=torch.float64)[None, :, None].expand(1, -1, 10)
    assert leep(probs, target, 2) == pytest.approx(-0.610864, abs=1e-6)
    assert label_entropy(joint_mass(probs, target, 2)) == pytest.approx(0.610864, abs=1e-6)


def test_one_hot_source_gives_minus_the_conditional_entropy() -> None:
    # z = 0 holds labels 3 x 0 and 1 x 1, z = 1 holds 2 x 1 and 2 x 2:
    # H(Y|Z) = 4/8 * (-.75 log .75 - .25 log .25) + 4/8 * log 2 = .5 * .562335 + .5 * .693147 = .627741
    source = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    target = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2]])
    probs = torch.nn.functional.one_hot(source, 2).movedim(-1, 1).double()
    assert leep(probs, target, 3) == pytest.approx(-0.627741, abs=1e-6)


def test_permuting_source_classes_changes_nothing() -> None:
    probs, target = volumes(seed=5)
    order = [2, 0, 1]
    before = hardness(probs, target, conditional_from_joint(joint_mass(probs, target, 5, IGNORE)), IGNORE)
    probs = probs[:, order]
    after = hardness(probs, target, conditional_from_joint(joint_mass(probs, target, 5, IGNORE)), IGNORE)
    torch.testing.assert_close(before, after, rtol=1e-6, atol=0)


def test_source_class_without_mass_gets_the_prior() -> None:
    joint = torch.tensor([[6.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.75, 0.75], [0.25, 0.25]], dtype=torch.float64)
    assert torch.equal(conditional_from_joint(joint), expected)
    assert torch.equal(class_prior(joint), torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_scale_of_the_joint_does_not_matter() -> None:
    joint = torch.tensor([[4.0, 1.0], [2.0, 8.0]], dtype=torch.float64)
    torch.testing.assert_close(conditional_from_joint(joint), conditional_from_joint(joint * 1e-9))
    assert label_entropy(joint) == pytest.approx(label_entropy(joint / 15), rel=1e-12)


def test_label_that_the_training_cases_rule_out_is_finitely_hard() -> None:
    conditional = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    hard = hardness(VECTOR_PROBS, torch.tensor([[1, 1, 0, 0]]), conditional)
    torch.testing.assert_close(hard, torch.tensor([[27.631021, 27.631021, 0.0, 0.0]]))
    assert float(hard.max()) == pytest.approx(-math.log(MIN_PROBABILITY))


def test_probabilities_that_sum_to_a_little_more_than_one_are_not_negatively_hard() -> None:
    hard = hardness(torch.full((1, 1, 2), 1.001), torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 1))
    assert hard.tolist() == [[0.0, 0.0]]


# -- accumulation -----------------------------------------------------------------------------------------------------


def filled(order: list[int]) -> LeepConditional:
    probs, target = volumes(batch=6)
    metric = LeepConditional(3, 5, IGNORE)
    for index in order:
        metric.update(probs[index : index + 1], target[index : index + 1])
    return metric


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])
def test_pieces_in_any_order_equal_all_at_once(order: list[int]) -> None:
    probs, target = volumes(batch=6)
    metric = filled(order)
    torch.testing.assert_close(metric.joint, joint_mass(probs, target, 5, IGNORE), rtol=1e-13, atol=0)
    torch.testing.assert_close(metric.compute(), filled([0, 1, 2, 3, 4, 5]).compute(), rtol=1e-13, atol=0)


def test_calling_the_metric_gives_the_batch_and_keeps_the_sum() -> None:
    probs, target = volumes()
    metric = LeepConditional(3, 5, IGNORE)
    for index in range(3):
        own = metric(probs[index : index + 1], target[index : index + 1])
        alone = joint_mass(probs[index : index + 1], target[index : index + 1], 5, IGNORE)
        torch.testing.assert_close(own, conditional_from_joint(alone))
    torch.testing.assert_close(metric.joint, joint_mass(probs, target, 5, IGNORE))
    metric.reset()
    assert float(metric.joint.sum()) == 0


def test_many_small_batches_lose_nothing() -> None:
    # 3000 additions of float32 numbers: exact to 1e-12 in float64, wrong in the fifth digit in float32
    probs = torch.full((1, 2, 1), 0.1)
    probs[:, 1] = 0.9
    metric = LeepConditional(2, 1)
    for _ in range(3000):
        metric.update(probs, torch.zeros(1, 1, dtype=torch.long))
    assert metric.joint.dtype == torch.float64
    expected = 3000 * probs[0, :, 0].double()
    torch.testing.assert_close(metric.joint[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_probabilities(dtype: torch.dtype) -> None:
    # 5000 voxels in one volume: a float16 sum would stop at 2048 and a bfloat16 sum at 256
    probs = torch.tensor([0.25, 0.75]).to(dtype)[None, :, None].expand(1, 2, 5000)
    target = torch.zeros(1, 5000, dtype=torch.long)
    target[:, 4000:] = 1
    metric = LeepConditional(2, 2)
    metric.update(probs, target)
    assert metric.joint.tolist() == [[1000.0, 3000.0], [250.0, 750.0]]
    hard = hardness(probs, target, metric.compute())
    torch.testing.assert_close(hard[0, [0, -1]], torch.tensor([-math.log(0.8), -math.log(0.2)]))
    assert expected_empirical_prediction(probs, metric.compute()).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_target(dtype: torch.dtype) -> None:
    probs, target = volumes()
    expected = joint_mass(probs, target, 5, IGNORE)
    assert torch.equal(joint_mass(probs, target.to(dtype), 5, IGNORE), expected)
    conditional = conditional_from_joint(expected)
    assert torch.equal(
        hardness(probs, target.to(dtype), conditional, IGNORE), hardness(probs, target, conditional, IGNORE)
    )


def test_a_mask_as_target() -> None:
    probs, target = volumes()
    mask = target == 1
    expected = joint_mass(probs, mask.long(), 2, IGNORE)
    assert torch.equal(joint_mass(probs, mask, 2, IGNORE), expected)
    conditional = conditional_from_joint(expected)
    assert torch.equal(hardness(probs, mask, conditional, IGNORE), hardness(probs, mask.long(), conditional, IGNORE))


@pytest.mark.parametrize("spatial", [(), (7,), (4, 3), (4, 3, 2)])
def test_any_number_of_dimensions(spatial: tuple[int, ...]) -> None:
    probs = torch.full((2, 3, *spatial), 1 / 3)
    target = torch.zeros(2, *spatial, dtype=torch.long)
    conditional = conditional_from_joint(joint_mass(probs, target, 2))
    assert hardness(probs, target, conditional).shape == (2, *spatial)


def test_volume_that_is_ignored_as_a_whole_adds_nothing() -> None:
    target = torch.full((1, 4), IGNORE)
    joint = joint_mass(VECTOR_PROBS, target, 2, IGNORE)
    assert torch.equal(joint, torch.zeros(2, 2, dtype=torch.float64))
    assert hardness(VECTOR_PROBS, target, torch.full((2, 2), 0.5), IGNORE).tolist() == [[0.0] * 4]


def test_the_joint_on_a_gpu_is_that_on_a_cpu() -> None:
    probs, target = volumes()
    flat, index = probs.movedim(1, 0).flatten(1), target.masked_fill(target == IGNORE, 5).flatten()
    expected = joint_mass(probs, target, 5, IGNORE)
    torch.testing.assert_close(_product_mass(flat, index, 5), expected, rtol=1e-13, atol=0)


def test_hardness_in_blocks_is_that_of_each_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, target = volumes()
    conditional = conditional_from_joint(joint_mass(probs, target, 5, IGNORE))
    whole = hardness(probs, target, conditional, IGNORE)
    monkeypatch.setattr("riskft.risk.leep.BLOCK", 7)
    torch.testing.assert_close(hardness(probs, target, conditional, IGNORE), whole, rtol=1e-6, atol=1e-9)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probs_shape", "target_shape"),
    [((1, 2, 4), (1, 5)), ((1, 2, 4), (2, 4)), ((1, 2, 4), (1, 1, 4)), ((2,), (2,)), ((1, 2, 3, 4), (1, 4, 3))],
)
def test_shapes_that_disagree(probs_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> None:
    probs, target = torch.rand(probs_shape), torch.zeros(target_shape, dtype=torch.long)
    message = r"Expected `source_probs` of shape \(B, Z, \*spatial\).*but got"
    with pytest.raises(ValueError, match=message):
        joint_mass(probs, target, 2)
    with pytest.raises(ValueError, match=message):
        hardness(probs, target, torch.rand(2, 2))


@pytest.mark.parametrize(("label", "ignore"), [(2, None), (-1, None), (IGNORE, None), (-1, IGNORE), (7, IGNORE)])
def test_labels_out_of_range(label: int, ignore: int | None) -> None:
    target = torch.tensor([[0, 1, label, 0]])
    with pytest.raises(ValueError, match=rf"Expected `target` in \[0, 2\), but got .*{label}"):
        joint_mass(VECTOR_PROBS, target, 2, ignore)
    with pytest.raises(ValueError, match=rf"Expected `target` in \[0, 2\), but got .*{label}"):
        hardness(VECTOR_PROBS, target, torch.rand(2, 2), ignore)


def test_floating_labels() -> None:
    for function in (
        lambda: joint_mass(VECTOR_PROBS, VECTOR_TARGET.float(), 2),
        lambda: hardness(VECTOR_PROBS, VECTOR_TARGET.float(), torch.rand(2, 2)),
    ):
        with pytest.raises(TypeError, match=r"integer class indices, but got torch\.float32"):
            function()


def test_conditional_of_another_source() -> None:
    with pytest.raises(ValueError, match=r"Expected `conditional` of shape \(Y, 2\), but got \(2, 3\)"):
        hardness(VECTOR_PROBS, VECTOR_TARGET, torch.rand(2, 3))


def test_no_voxel_at_all() -> None:
    with pytest.raises(ValueError, match="no voxel has been counted"):
        conditional_from_joint(torch.zeros(2, 2, dtype=torch.float64))


def test_metric_checks_its_input() -> None:
    metric = LeepConditional(3, 2)
    with pytest.raises(ValueError, match="Expected `source_probs` with 3 channels, but got 2"):
        metric.update(VECTOR_PROBS, VECTOR_TARGET)
    assert float(metric.joint.sum()) == 0


@pytest.mark.parametrize(
    ("source", "target", "name"), [(0, 2, "num_source_classes"), (2, 0, "num_target_classes"), (-1, 2, "num_source")]
)
def test_metric_checks_its_options(source: int, target: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"Expected argument `{name}"):
        LeepConditional(source, target)
