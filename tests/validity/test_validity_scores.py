"""AUROC and average precision against a count of all pairs, scikit-learn, and numbers by hand."""

import math

import numpy as np
import pytest
import torch

from riskft.validity.scores import NOT_ASKED, RATES, Voxels, pooled_scores, ranks, roc_curve, score, score_all


def sample(seed, count=400, levels=30, scale=1.0):
    """Values with many ties, and a target that they tell a little of."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(levels, (count,), generator=generator).float() * scale
    target = (values / scale + 15 * torch.randn(count, generator=generator) > 0.8 * levels).to(torch.int8)
    return values, target


def naive_auroc(values, target):
    """The share of pairs of a positive and a negative voxel in which the positive has more; half for a tie."""
    positive, negative = values[target == 1][:, None], values[target == 0][None]
    return float(((positive > negative).double() + 0.5 * (positive == negative).double()).mean())


def naive_ap(values, target):
    """The mean precision at the positive voxels, all tied voxels taken together."""
    return float(np.mean([target[values >= value].double().mean() for value in values[target == 1]]))


@pytest.mark.parametrize("seed", range(4))
def test_against_all_pairs(seed):
    values, target = sample(seed)
    found = score(ranks(values), target)
    assert found.auroc == pytest.approx(naive_auroc(values, target), abs=1e-6)
    assert found.ap == pytest.approx(naive_ap(values, target), abs=1e-6)
    assert found.prevalence == pytest.approx(float(target.double().mean()))
    assert found.voxels == 400


def test_against_scikit_learn_on_many_voxels():
    metrics = pytest.importorskip("sklearn.metrics")
    values, target = sample(7, count=200_000, levels=100_000)
    target[values.argsort(descending=True)[:50]] = 0
    found = score(ranks(values), target)
    assert found.auroc == pytest.approx(metrics.roc_auc_score(target.numpy(), values.numpy()), abs=1e-5)
    assert found.ap == pytest.approx(metrics.average_precision_score(target.numpy(), values.numpy()), abs=1e-5)


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
def test_values_of_any_size_keep_their_order(shift):
    """A sigmoid would make all of them equal."""
    values, target = sample(1, scale=0.125)
    assert score(ranks(values + shift), target) == score(ranks(values), target)


def test_by_hand():
    target = torch.tensor([1, 0, 1, 0], dtype=torch.int8)
    found = score(ranks(torch.tensor([4.0, 3.0, 2.0, 1.0])), target)
    assert (found.auroc, found.ap) == (pytest.approx(3 / 4), pytest.approx((1 + 2 / 3) / 2))
    constant = score(ranks(torch.full((4,), 27.6)), target)
    assert (constant.auroc, constant.ap) == (0.5, 0.5)


def test_only_voxels_that_are_asked_for_count():
    values, target = sample(2)
    left_out = torch.arange(400) % 3 == 0
    found = score(ranks(values), target.masked_fill(left_out, NOT_ASKED))
    assert found == score(ranks(values[~left_out]), target[~left_out])
    assert found.voxels == 266


@pytest.mark.parametrize(("target", "prevalence"), [([0, 0, -1], 0.0), ([1, -1, 1], 1.0)])
def test_no_score_without_both_kinds(target, prevalence):
    found = score(ranks(torch.tensor([1.0, 2.0, 3.0])), torch.tensor(target, dtype=torch.int8))
    assert math.isnan(found.auroc)
    assert math.isnan(found.ap)
    assert found.prevalence == prevalence


def test_no_voxels():
    found = score(ranks(torch.zeros(0)), torch.zeros(0, dtype=torch.int8))
    assert math.isnan(found.auroc)
    assert math.isnan(found.prevalence)
    assert found.voxels == 0
    assert np.isnan(roc_curve(torch.zeros(0), torch.zeros(0, dtype=torch.int8))).all()


def test_curve_encloses_the_area():
    values, target = sample(3)
    curve = roc_curve(ranks(values), target)
    assert curve[-1] == 1
    assert (np.diff(curve) >= 0).all()
    assert np.trapezoid(curve, RATES) == pytest.approx(naive_auroc(values, target), abs=2e-3)


def test_pooling_is_over_the_voxels_of_all_cases():
    cases = []
    for seed in (4, 5):
        values, target = sample(seed)
        cases.append(Voxels({"h": values + 100 * seed, "g": -values}, {"error": target, "other": 1 - target}))
    scores, curves = pooled_scores(cases, "error")
    assert set(scores) == {(target, name) for target in ("error", "other") for name in ("h", "g")}
    values = torch.cat([case.predictors["h"] for case in cases])
    target = torch.cat([case.targets["error"] for case in cases])
    assert scores["error", "h"].auroc == pytest.approx(naive_auroc(values, target), abs=1e-6)
    assert scores["other", "h"].auroc == pytest.approx(1 - naive_auroc(values, target), abs=1e-6)
    np.testing.assert_array_equal(curves["h"], roc_curve(ranks(values), target))
    alone = score_all(cases[0])["error", "h"]
    assert alone.auroc == pytest.approx(naive_auroc(cases[0].predictors["h"], cases[0].targets["error"]), abs=1e-6)
