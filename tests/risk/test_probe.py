"""The probe: what it samples, that it finds the best regression, and that what P(y|z) misses it sees."""

import math

import numpy as np
import pytest
import torch

from riskft.risk.leep import conditional_from_joint, joint_mass
from riskft.risk.probe import FLOOR, Probe, VoxelSample, fit_probe, sample_voxels


def test_samples_are_spread_evenly_and_leave_out_what_does_not_count():
    target = torch.tensor([[0, 0, 0, 0, 1], [255, 0, 0, 1, 1]])
    probabilities = torch.linspace(0.05, 0.95, 10).view(1, 2, 5)
    probabilities = torch.cat([probabilities, 1 - probabilities])
    sample = sample_voxels(probabilities, target, 3, per_class=3)
    # background at 0, 1, 2, 3, 6, 7: every second; of class 1 all three; of class 2 none
    assert sample.classes.tolist() == [0, 0, 0, 1, 1, 1]
    first = probabilities[0].flatten()[[0, 2, 6, 4, 8, 9]]
    log_odds = torch.log(first / (1 - first)) / 2
    torch.testing.assert_close(sample.features, torch.stack([log_odds, -log_odds], 1))


def test_a_probability_of_0_stays_finite():
    sample = sample_voxels(torch.tensor([[1.0], [0.0]]), torch.tensor([0]), 2)
    assert sample.features[0].tolist() == pytest.approx([-math.log(FLOOR) / 2, math.log(FLOOR) / 2])


def test_classes_count_as_often_as_in_the_cases_and_not_in_the_sample():
    """Features that say nothing: each class is as likely as it is frequent, and the loss is H(Y)."""
    sample = VoxelSample(torch.zeros(60, 2), torch.tensor([0] * 50 + [1] * 9 + [2]))
    probe = fit_probe([sample], [700, 200, 100])
    assert probe.loss == pytest.approx(-(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)), abs=1e-6)
    assert probe.bias.softmax(0).tolist() == pytest.approx([0.7, 0.2, 0.1], abs=1e-4)


def test_against_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 400)
    features = rng.normal(size=(400, 2)) + np.array([[1, 0], [0, 1], [-1, -1]])[classes]
    probe = fit_probe(
        [VoxelSample(torch.from_numpy(features).float(), torch.from_numpy(classes))], [600, 300, 100], ridge=1e-3
    )
    weight = (np.array([0.6, 0.3, 0.1]) / np.bincount(classes))[classes]
    # its objective is C sum_i w_i loss_i + 1/2 |A|^2
    oracle = linear_model.LogisticRegression(C=1 / (2 * 1e-3), tol=1e-10, max_iter=10000)
    oracle.fit(features.astype(np.float32), classes, weight)
    np.testing.assert_allclose(probe.matrix.numpy(), oracle.coef_, atol=2e-3)
    shift = probe.bias.numpy() - oracle.intercept_
    np.testing.assert_allclose(shift, shift.mean(), atol=2e-3)


def test_a_class_without_voxels_is_never_predicted_and_spoils_nothing():
    features = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(10, 1)
    classes = torch.tensor([0, 2]).repeat(10)
    probe = fit_probe([VoxelSample(features, classes)], [10, 0, 10])
    assert probe.matrix[1].tolist() == [0, 0]
    assert torch.isfinite(probe.matrix).all()
    assert probe.loss < 0.2


def test_it_sees_what_the_mass_of_the_source_does_not():
    """A source that calls all voxels background, a little less surely where the target's class is 1."""
    target = torch.tensor([0] * 80 + [1] * 20)
    foreground = torch.where(target == 1, 1e-3, 1e-5)
    probabilities = torch.stack([1 - foreground, foreground])
    joint = joint_mass(probabilities[None], target[None], 2)
    expected = conditional_from_joint(joint) @ probabilities.double()
    assert expected[1].max() - expected[1].min() < 1e-3  # P(y|z) cannot tell them apart
    probe = fit_probe([sample_voxels(probabilities, target, 2)], [80, 20])
    assert probe.loss < 0.15  # H(Y) is 0.50


def test_rows_turn_a_constant_of_all_source_logits_into_nothing():
    probe = Probe(torch.tensor([[1.0, 2.0], [-3.0, 5.0]]).double(), torch.zeros(2).double(), 0.0)
    assert probe.rows().tolist() == [[-0.5, 0.5], [-4.0, 4.0]]
    assert Probe.from_json(probe.to_json()).matrix.equal(probe.matrix)
