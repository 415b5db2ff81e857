"""LEEP, LEEP by class and NCE against numbers by hand, closed forms, and loops."""

import math

import pytest
import torch
from torch import Tensor

from riskft.risk.leep import MIN_PROBABILITY, conditional_from_joint, hardness, joint_mass
from riskft.transferability.predictions import leep, leep_by_class, nce
from riskft.transferability.samples import CannotScoreError, chosen_voxels

VECTOR = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
LABELS = torch.tensor([0, 0, 1, 1])
ONES = torch.ones(4, dtype=torch.float64)


def drawn(seed: int = 0, count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    probabilities[:, 2] = 0  # a source class without mass
    classes = torch.randint(0, 3, (count,), generator=generator)
    classes[classes == 1] = 5  # classes 1 to 4 do not occur
    weights = torch.randint(1, 6, (count,), generator=generator).double()
    return probabilities / probabilities.sum(1, keepdim=True), classes, weights


def by_loops(probabilities: Tensor, classes: Tensor, weights: Tensor) -> tuple[float, float]:
    """LEEP and the mean over classes, from the definition."""
    rows = list(zip(probabilities.tolist(), classes.tolist(), weights.tolist(), strict=True))
    labels, mass = sorted(set(classes.tolist())), float(weights.sum())
    joint = {y: [sum(w * p[z] for p, c, w in rows if c == y) / mass for z in range(len(rows[0][0]))] for y in labels}
    column = [sum(joint[y][z] for y in labels) for z in range(len(rows[0][0]))]
    logs = []
    for p, c, w in rows:
        eep = sum(joint[c][z] / column[z] * p[z] for z in range(len(p)) if column[z] > 0)
        logs.append((c, w, math.log(eep)))
    means = [sum(w * v for c, w, v in logs if c == y) / sum(w for c, w, _ in logs if c == y) for y in labels]
    return sum(w * v for _, w, v in logs) / mass, sum(means) / len(means)


def test_the_published_example():
    assert leep(VECTOR, LABELS, ONES) == pytest.approx(-0.462559, abs=1e-6)
    # P(true) is .65625 and .604167 in both classes
    assert leep_by_class(VECTOR, LABELS, ONES) == pytest.approx((math.log(0.65625) + math.log(0.604167)) / 2, abs=1e-6)
    assert nce(VECTOR, LABELS, ONES) == pytest.approx(0)  # the most probable class determines the label


def test_definitions_with_weights_and_absent_classes():
    sample = drawn()
    overall, by_class = by_loops(*sample)
    assert leep(*sample) == pytest.approx(overall, abs=1e-12)
    assert leep_by_class(*sample) == pytest.approx(by_class, abs=1e-12)


@pytest.mark.parametrize("score", [leep, leep_by_class, nce])
def test_a_weight_counts_as_that_many_voxels_and_order_does_not_matter(score):
    probabilities, classes, weights = drawn(1)
    times = weights.long()
    many = probabilities.repeat_interleave(times, 0), classes.repeat_interleave(times)
    expected = score(probabilities, classes, weights)
    assert score(*many, torch.ones(len(many[1]), dtype=torch.float64)) == pytest.approx(expected, abs=1e-12)
    assert score(probabilities, classes, 7 * weights) == pytest.approx(expected, abs=1e-12)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(2))
    assert score(probabilities[order], classes[order], weights[order]) == pytest.approx(expected, abs=1e-12)
    assert score(probabilities[:, [3, 1, 0, 2]], classes, weights) == pytest.approx(expected, abs=1e-12)


def test_a_source_that_knows_nothing_scores_minus_the_entropy_and_a_perfect_one_0():
    classes = torch.tensor([0] * 7 + [1] * 3)
    ones = torch.ones(10, dtype=torch.float64)
    constant = torch.full((10, 3), 1 / 3)
    assert leep(constant, classes, ones) == pytest.approx(-0.610864, abs=1e-6)
    assert leep_by_class(constant, classes, ones) == pytest.approx((math.log(0.7) + math.log(0.3)) / 2)
    assert nce(constant, classes, ones) == pytest.approx(-0.610864, abs=1e-6)
    perfect = torch.eye(2)[1 - classes]  # names swapped
    for score in (leep, leep_by_class, nce):
        assert score(perfect, classes, ones) == pytest.approx(0, abs=1e-12)


def test_leep_of_a_hard_source_is_nce():
    _, classes, weights = drawn(3)
    hard = torch.eye(4)[torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(4))]
    assert leep(hard, classes, weights) == pytest.approx(nce(hard, classes, weights), abs=1e-12)


def test_leep_of_a_sample_is_that_of_the_volume_it_was_drawn_from():
    generator = torch.Generator().manual_seed(5)
    target = (torch.rand(24, 24, 24, generator=generator) > 0.97).to(torch.uint8)
    target[:4] = 255
    logits = torch.randn(3, 24, 24, 24, generator=generator)
    logits[1] += 2 * (target == 1)
    volume = logits.softmax(0)
    conditional = conditional_from_joint(joint_mass(volume[None], target[None], 2, 255))
    expected = -float(hardness(volume[None], target[None], conditional, 255).sum() / (target != 255).sum())
    for per_class, tolerance in ((24**3, 1e-6), (300, 0.01)):
        indices, weights = chosen_voxels(target, per_class, generator)
        probabilities, classes = volume.flatten(1).T[indices], target.flatten()[indices].long()
        assert leep(probabilities, classes, weights) == pytest.approx(expected, abs=tolerance)


def test_nce_by_hand():
    # z = 0: 30 voxels of class 0 and 10 of class 1; z = 1: 60 of class 1
    probabilities = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    value = nce(probabilities, torch.tensor([0, 1, 1]), torch.tensor([30.0, 10.0, 60.0], dtype=torch.float64))
    assert value == pytest.approx(0.4 * (0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_a_label_that_counts_for_nothing_leaves_the_score_finite():
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    value = leep(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]), torch.tensor([0, 0, 1, 2]), weights)
    assert value == pytest.approx((2 * math.log(2 / 3) + math.log(1 / 3)) / 3)
    assert math.log(MIN_PROBABILITY) < value
    with pytest.raises(CannotScoreError, match="no voxel counts"):
        leep(VECTOR, LABELS, 0 * ONES)
