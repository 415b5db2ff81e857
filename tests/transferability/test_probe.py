"""The linear probe against scikit-learn's logistic regression, and numbers by hand."""

import math
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from riskft.transferability.probe import PENALTY, estimated_dice, fit_probe, score_probe
from riskft.transferability.samples import CannotScoreError, VoxelSample


def case(features: Tensor, classes: Tensor, weights: Tensor | None = None) -> VoxelSample:
    counts = torch.ones(len(classes), dtype=torch.float64) if weights is None else weights
    return VoxelSample("a", classes, counts, None, {"decoder": features})


def drawn(count: int = 120, size: int = 6, seed: int = 0, signal: float = 1.0) -> VoxelSample:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, 3, (count,), generator=generator)
    means = torch.linspace(-1, 1, 3 * size).reshape(3, size).sin() * 3
    features = 5 + 3 * torch.randn(count, size, generator=generator) + signal * means[classes]
    return case(features, classes, torch.tensor([90.0, 9.0, 1.0], dtype=torch.float64)[classes])


def test_the_fit_is_scikit_learns_with_the_same_total_weight_for_each_class():
    linear = pytest.importorskip("sklearn.linear_model")
    sample = drawn()
    sample.classes[:40] = 0
    features = sample.features["decoder"]
    probe = fit_probe(features, sample.classes, sample.weights, 3)
    scaled = ((features.double() - features.double().mean(0)) / features.double().std(0, correction=0)).numpy()
    balanced = 1 / (3 * torch.bincount(sample.classes)[sample.classes].double().numpy())
    expected = linear.LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10_000)
    expected.fit(scaled, sample.classes.numpy(), sample_weight=balanced)
    assert probe.slopes.numpy() == pytest.approx(expected.coef_.T, abs=1e-4)
    assert torch.allclose(probe.prior, (torch.bincount(sample.classes, sample.weights) / sample.weights.sum()).log())
    assert (probe.offsets - probe.offsets.mean()).numpy() == pytest.approx(
        expected.intercept_ - expected.intercept_.mean(), abs=1e-4
    )


def test_a_probe_that_may_not_use_the_features_predicts_the_class_frequencies_whatever_was_sampled():
    sample = drawn()
    probe = fit_probe(sample.features["decoder"], sample.classes, sample.weights, 3, penalty=1e6)
    expected = torch.bincount(sample.classes, sample.weights) / sample.weights.sum()
    assert torch.allclose(probe.log_probabilities(sample.features["decoder"]).exp(), expected, atol=1e-4)


def test_probabilities_of_a_rare_class_are_those_of_all_voxels():
    # 1 in 50 voxels is of class 1; N(0, 1) and N(2, 1): the log odds are 2 x - 2 - log 49
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(40_000) % 2
    features = torch.randn(40_000, 1, generator=generator) + 2 * classes[:, None]
    weights = torch.where(classes == 0, 49.0, 1.0).double()
    probe = fit_probe(features, classes, weights, 2, penalty=1e-6)
    found = probe.log_probabilities(torch.tensor([[0.0], [1.0], [3.0]]))
    expected = torch.tensor([-2.0, 0.0, 4.0], dtype=torch.float64) - math.log(49)
    assert torch.allclose(found[:, 1] - found[:, 0], expected, atol=0.08)


def test_dice_by_hand():
    truth, prediction = torch.tensor([0, 0, 1, 1, 2, 0]), torch.tensor([0, 1, 1, 0, 1, 0])
    weights = torch.tensor([9.0, 2.0, 3.0, 4.0, 5.0, 1.0])
    found = estimated_dice(truth, prediction, weights, 4)
    assert found[:2] == pytest.approx([2 * 3 / (3 + 4 + 2 + 3 + 5), 0])
    assert math.isnan(found[2])


def test_each_case_is_scored_by_the_probe_of_the_others():
    samples = [drawn(90, seed=seed) for seed in (2, 3, 4)]
    found = score_probe(samples, "decoder", 3)
    rest = [torch.cat([getattr(s, name) for s in samples[1:]]) for name in ("classes", "weights")]
    probe = fit_probe(torch.cat([s.features["decoder"] for s in samples[1:]]), *rest, 3)
    predicted = probe.log_probabilities(samples[0].features["decoder"]).numpy()
    own = predicted[np.arange(90), samples[0].classes.numpy()]
    assert found.nll[0] == pytest.approx(-np.average(own, weights=samples[0].weights.numpy()))
    prediction = (torch.from_numpy(predicted) - 0.5 * probe.prior).argmax(1)
    assert found.dice[0] == pytest.approx(estimated_dice(samples[0].classes, prediction, samples[0].weights, 3))
    assert (found.nll.shape, found.dice.shape) == ((3,), (3, 2))


def test_many_cases_are_left_out_several_at_a_time():
    samples = [drawn(30, seed=seed) for seed in range(12)]
    found = score_probe(samples, "decoder", 3)
    rest = [s for index, s in enumerate(samples) if index not in (1, 11)]
    probe = fit_probe(
        torch.cat([s.features["decoder"] for s in rest]),
        torch.cat([s.classes for s in rest]),
        torch.cat([s.weights for s in rest]),
        3,
    )
    for index in (1, 11):
        predicted = probe.log_probabilities(samples[index].features["decoder"]).numpy()
        own = predicted[np.arange(30), samples[index].classes.numpy()]
        assert found.nll[index] == pytest.approx(-np.average(own, weights=samples[index].weights.numpy()))


def test_better_features_score_better():
    results = [
        score_probe([drawn(300, seed=seed, signal=signal) for seed in range(3)], "decoder", 3) for signal in (0, 2)
    ]
    assert results[1].nll.mean() < results[0].nll.mean()
    assert results[1].dice.mean() > results[0].dice.mean() + 0.1


def test_order_scale_and_offset_of_the_features_do_not_matter():
    samples = [drawn(90, seed=seed) for seed in (5, 6)]
    expected = score_probe(samples, "decoder", 3)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(7))
    factors = torch.tensor([1e-3, 1.0, 2.0, 50.0, 1e3, -1.0])
    changed = [
        case(s.features["decoder"][order].flip(1) * factors + 3, s.classes[order], s.weights[order]) for s in samples
    ]
    found = score_probe(changed, "decoder", 3)
    assert found.nll == pytest.approx(expected.nll, abs=1e-3)
    assert found.dice == pytest.approx(expected.dice, abs=1e-6)


def test_a_class_that_only_the_left_out_case_has_costs_a_finite_amount():
    one, other = drawn(60, seed=8), drawn(60, seed=9)
    seen = case(other.features["decoder"], other.classes.clamp_max(1), other.weights)
    found = score_probe([one, seen], "decoder", 3)
    assert np.isfinite(found.nll).all()
    assert found.dice[0, 1] == 0
    assert np.nanmin(found.dice) == 0


def test_features_that_do_not_vary_are_ignored_and_more_features_than_voxels_are_finite():
    samples = [drawn(60, seed=seed) for seed in (10, 11)]
    expected = score_probe(samples, "decoder", 3)
    wider = [
        case(torch.cat([s.features["decoder"], torch.full((60, 2), 0.1)], 1), s.classes, s.weights) for s in samples
    ]
    assert score_probe(wider, "decoder", 3).nll == pytest.approx(expected.nll, abs=1e-5)
    many = [
        case(torch.randn(20, 200, generator=torch.Generator().manual_seed(k)), torch.arange(20) % 3) for k in (1, 2)
    ]
    assert np.isfinite(score_probe(many, "decoder", 3).nll).all()


def test_what_cannot_be_scored_says_why():
    with pytest.raises(CannotScoreError, match="one labelled case"):
        score_probe([drawn()], "decoder", 3)
    alike = case(torch.ones(6, 2), torch.arange(6) % 3)
    with pytest.raises(CannotScoreError, match="the same in all voxels"):
        score_probe([alike, alike], "decoder", 3)
    single = case(torch.randn(6, 2), torch.zeros(6, dtype=torch.long))
    with pytest.raises(CannotScoreError, match="1 class in the cases to fit the probe on"):
        score_probe([drawn(size=2), single], "decoder", 3)


def test_four_cases_take_less_than_a_second():
    samples = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        classes = torch.arange(1000) % 4
        features = torch.randn(1000, 64, generator=generator) + torch.randn(4, 64, generator=generator)[classes] / 2
        samples.append(case(features.relu(), classes))
    start = time.process_time()
    score_probe(samples, "decoder", 4)
    assert time.process_time() - start < 2  # 0.3 s on an idle machine
