"""Predictors of risk and the voxels looked at, against numbers computed by hand and naive loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from riskft.risk.distribution import ClassDistribution
from riskft.validity.predictors import boundary_distance, entropy, predictors, region

# LEEP's textbook vector: four voxels, two source classes
STATES = torch.tensor([[0.9, 0.8, 0.3, 0.4], [0.1, 0.2, 0.7, 0.6]])
CLASSES = torch.tensor([0, 0, 1, 1])
JOINT = torch.tensor([[1.7, 0.3], [0.7, 1.3]], dtype=torch.float64)
TRUE = (0.65625, 0.604167, 0.65625, 0.604167)


def binary_entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_each_predictor_by_hand():
    found = predictors(STATES, CLASSES, torch.tensor([0.0, 1.5, 2.0, 0.0]), JOINT, None)
    hardness = [-math.log(p) for p in TRUE]
    assert set(found) == {"hardness", "relative to prior", "class prior", "source entropy", "EEP entropy", "boundary"}
    assert found["hardness"].tolist() == pytest.approx(hardness, abs=1e-6)
    assert found["class prior"].tolist() == pytest.approx([math.log(2)] * 4)
    assert found["relative to prior"].tolist() == pytest.approx([h - math.log(2) for h in hardness], abs=1e-6)
    assert found["source entropy"].tolist() == pytest.approx([binary_entropy(p) for p in (0.9, 0.8, 0.3, 0.4)])
    assert found["EEP entropy"].tolist() == pytest.approx([binary_entropy(p) for p in TRUE], abs=1e-6)
    assert found["boundary"].tolist() == [0, -1.5, -2, 0]
    assert all(value.dtype == torch.float32 for value in found.values())


def test_rank_is_among_the_class_s_training_voxels():
    dataset = ClassDistribution(2)
    dataset.update(torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 0, 0, 0]))
    dataset.update(torch.tensor([0.45, 2.0]), torch.tensor([1, 1]))
    found = predictors(STATES, CLASSES, torch.zeros(4), JOINT, dataset)["rank in class"]
    # h = .4212, .5040, .4212, .5040: above three of four in class 0; below all, and above one of two, in class 1
    assert found.tolist() == pytest.approx([0.75, 0.75, 0.0, 0.5])


def test_a_class_without_training_voxels_is_hard_and_not_nan():
    joint = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    found = predictors(STATES, torch.tensor([0, 1, 2, 2]), torch.zeros(4), joint, None)
    assert all(value.isfinite().all() for value in found.values())
    assert found["hardness"].argmax() >= 2


def test_entropy_of_certainty_is_zero():
    assert entropy(torch.tensor([[1.0, 0.5], [0.0, 0.5]])).tolist() == pytest.approx([0, math.log(2)])


def test_boundary_distance_in_mm_by_hand():
    line = torch.tensor([0, 0, 0, 1, 1, 1]).view(1, 6, 1)
    assert boundary_distance(line, (1.0, 2.5, 9.0)).flatten().tolist() == [5, 2.5, 0, 0, 2.5, 5]


def test_what_is_ignored_bounds_nothing():
    line = torch.tensor([0, 0, 255, 1, 1, 2]).view(6, 1, 1)
    assert boundary_distance(line, (2.0, 1.0, 1.0)).flatten().tolist() == [8, 6, 4, 2, 0, 0]
    alone = torch.tensor([0, 0, 255, 1]).view(4, 1, 1)
    assert boundary_distance(alone, (3.0, 3.0, 4.0)).flatten().tolist() == pytest.approx([math.sqrt(144 + 9 + 16)] * 4)


def test_boundary_distance_against_a_naive_loop():
    spacing = np.array([1.2, 1.5, 3.0])
    label = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 255], (6, 5, 4), p=[0.9, 0.05, 0.03, 0.02]))
    places = list(np.ndindex(*label.shape))

    def differs(a, b):
        neighbours = sum(abs(i - j) for i, j in zip(a, b, strict=True)) == 1
        return neighbours and label[a] != label[b] and 255 not in (label[a], label[b])

    at = np.array([place for place in places if any(differs(place, other) for other in places)])
    naive = [min(np.linalg.norm((at - place) * spacing, axis=1)) for place in places]
    assert 5 < len(at) < 100
    np.testing.assert_allclose(boundary_distance(label, spacing.tolist()).flatten(), naive, rtol=1e-6)


@pytest.mark.parametrize("margin", [1, 2, 3])
def test_region_is_what_lies_within_the_margin_of_the_foreground(margin):
    label = torch.zeros(9, 7, 8, dtype=torch.int64)
    label[2, 1, 6], label[7, 6, 7], label[0, 0, 0] = 1, 2, 255
    inside = region(label, margin)
    for place in itertools.product(*map(range, label.shape)):
        near = any(max(abs(i - j) for i, j in zip(place, fg, strict=True)) <= margin for fg in ((2, 1, 6), (7, 6, 7)))
        assert inside[place] == (near and place != (0, 0, 0))


def test_region_of_margin_zero_is_everything_that_counts():
    label = torch.tensor([0, 1, 255, 0]).view(2, 2, 1)
    assert region(label, 0).flatten().tolist() == [True, True, False, True]
    assert not region(torch.zeros(3, 3, 3), 4).any()


def test_a_margin_beyond_the_volume_takes_all_of_it():
    label = torch.zeros(3, 4, 5)
    label[0, 0, 0] = 1
    assert region(label, 10**23).all()
