"""H-score, LogME and GBC against independent computations and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from riskft.transferability.moments import Moments, moments, total
from riskft.transferability.samples import CannotScoreError
from riskft.transferability.separability import gbc, h_score, ledoit_wolf, logme

Score = Callable[[Moments], float]


def summed(features: Tensor, classes: Tensor, centre: Tensor | None = None) -> Moments:
    shift = features.double().mean(0) if centre is None else centre
    return moments(features, classes, int(classes.max()) + 1, shift)


def drawn(seed: int = 0, count: int = 90, size: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    values = torch.randn(count, size, generator=generator, dtype=torch.float64) @ mixing
    return values + torch.randn(classes, size, generator=generator, dtype=torch.float64)[labels] + 3, labels


@pytest.mark.parametrize(("count", "size"), [(90, 5), (12, 30)])
def test_shrinkage_is_scikit_learns(count: int, size: int):
    covariance = pytest.importorskip("sklearn.covariance")
    values, labels = drawn(1, count, size)
    expected = covariance.LedoitWolf().fit(values.numpy())
    far = torch.full((size,), 2.5, dtype=torch.float64)  # the centre must not matter
    for centre in (None, far):
        found, variance = ledoit_wolf(summed(values, labels, centre))
        assert found == pytest.approx(expected.shrinkage_, rel=1e-9)
        shrunk = (1 - found) * np.cov(values.numpy().T, bias=True) + found * variance * np.eye(size)
        assert shrunk == pytest.approx(expected.covariance_, rel=1e-9)


@pytest.mark.parametrize(("count", "size"), [(90, 5), (12, 30)])
def test_h_score_is_its_definition(count: int, size: int):
    covariance = pytest.importorskip("sklearn.covariance")
    values, labels = drawn(2, count, size)
    array = values.numpy()
    fitted = covariance.LedoitWolf().fit(array)
    means = np.stack([array[labels.numpy() == label].mean(0) for label in range(3)])[labels.numpy()]
    between = (1 - fitted.shrinkage_) * np.cov(means.T, bias=True)
    assert h_score(summed(values, labels)) == pytest.approx(np.trace(np.linalg.pinv(fitted.covariance_) @ between))


def test_h_score_of_a_one_hot_feature():
    # cov = (I - 11^T/4)/4, which is also cov(E[f|y]); its variance 3/16; 400 voxels
    labels = torch.arange(400) % 4
    norm = 3 / 16  # |cov|^2
    error = ((3 / 4) ** 2 - norm) / 400
    distance = norm - 4 * (3 / 16) ** 2
    shrinkage = error / distance
    expected = 3 * (1 - shrinkage) / 4 / ((1 - shrinkage) / 4 + shrinkage * 3 / 16)
    assert h_score(summed(torch.eye(4)[labels], labels)) == pytest.approx(expected, rel=1e-6)
    two = torch.arange(100) % 2  # no shrinkage is needed, and the covariance is singular
    assert h_score(summed(torch.eye(2)[two], two)) == pytest.approx(1, rel=1e-6)


def brute_evidence(values: np.ndarray, labels: np.ndarray) -> float:
    """The largest log density of y ~ N(0, I/b + f f^T/a), over a and b, by a simplex search from several starts."""
    found = []
    for label in range(labels.max() + 1):
        target = (labels == label).astype(float)

        def negative(logs: np.ndarray, target: np.ndarray = target) -> float:
            covariance = np.eye(len(target)) / math.exp(logs[1]) + values @ values.T / math.exp(logs[0])
            return -float(stats.multivariate_normal.logpdf(target, np.zeros(len(target)), covariance))

        grid = [(a, b) for a in (-4.0, 0.0, 4.0) for b in (0.0, 3.0)]
        best = min(grid, key=lambda start: negative(np.array(start)))
        options = {"xatol": 1e-6, "fatol": 1e-9}
        found.append(-optimize.minimize(negative, best, method="Nelder-Mead", options=options).fun / len(target))
    return float(np.mean(found))


@pytest.mark.parametrize(("count", "size"), [(30, 4), (12, 30)])
def test_logme_is_the_largest_evidence(count: int, size: int):
    values, labels = drawn(3, count, size)
    expected = brute_evidence(values.numpy(), labels.numpy())
    assert logme(summed(values, labels)) == pytest.approx(expected, abs=1e-6)


def test_logme_of_a_feature_that_says_nothing_is_that_of_noise_and_of_the_label_itself_is_capped():
    labels = torch.tensor([0, 0, 1, 1])
    blind = torch.tensor([[1.0, -1.0, 1.0, -1.0]]).T
    assert logme(summed(blind, labels)) == pytest.approx(-0.5 * (math.log(0.5) + 1 + math.log(2 * math.pi)), abs=1e-6)
    many = labels.repeat(100)
    assert 4 < logme(summed(torch.eye(2)[many], many)) < 0.5 * math.log(1e6)


def test_gbc_of_two_gaussians_is_the_overlap_of_their_densities():
    labels = torch.tensor([0, 0, 1, 1])
    values = torch.tensor([[-1.0], [1.0], [1.0], [5.0]])  # N(0, 1) and N(3, 4)
    one, other = stats.norm(0, 1), stats.norm(3, 2)
    overlap, _ = integrate.quad(lambda x: math.sqrt(one.pdf(x) * other.pdf(x)), -20, 20)
    assert gbc(summed(values, labels)) == pytest.approx(-2 * overlap, abs=1e-9)
    # 1/8 9/2.5 + 1/2 log(2.5/2)
    assert gbc(summed(values, labels)) == pytest.approx(-2 * math.exp(-9 / 20 - math.log(1.25) / 2))


def test_gbc_is_the_sum_over_pairs_of_spherical_gaussians():
    values, labels = drawn(4)
    expected = 0.0
    parts = [values[labels == label] for label in range(3)]
    for one in range(3):
        for other in range(3):
            if one != other:
                first, second = (float(parts[k].var(0, correction=0).mean()) for k in (one, other))
                middle = (first + second) / 2
                gap = float((parts[one].mean(0) - parts[other].mean(0)).square().sum())
                expected -= math.exp(-gap / middle / 8 - 5 / 2 * math.log(middle / math.sqrt(first * second)))
    assert gbc(summed(values, labels)) == pytest.approx(expected)


@pytest.mark.parametrize("score", [h_score, logme, gbc])
def test_order_and_scale_do_not_matter(score: Score):
    values, labels = drawn(5)
    expected = score(summed(values, labels))
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(6))
    assert score(summed(values[order], labels[order])) == pytest.approx(expected, rel=1e-9)
    assert score(summed(values.flip(1), labels)) == pytest.approx(expected, rel=1e-9)
    assert score(summed(values * 1e4, labels)) == pytest.approx(expected, rel=1e-6)
    assert score(summed(values / 1e4, labels)) == pytest.approx(expected, rel=1e-6)
    assert score(summed(values, 2 - labels)) == pytest.approx(expected, rel=1e-9)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))).Q
    assert score(summed(values @ rotation, labels)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("score", [h_score, logme, gbc])
def test_classes_apart_score_higher_than_classes_alike(score: Score):
    noise, labels = drawn(8, 300)
    apart = noise + 4 * torch.eye(5, dtype=torch.float64)[labels]
    assert score(summed(apart, labels)) > score(summed(noise[torch.randperm(300)], labels))


@pytest.mark.parametrize("score", [h_score, logme, gbc])
def test_what_cannot_be_scored_says_why(score: Score):
    labels = torch.arange(20) % 2
    constant = torch.full((20, 3), 0.1) * torch.tensor([1.0, 1e3, 0.0])
    with pytest.raises(CannotScoreError, match="the same in all voxels"):
        score(summed(constant, labels))
    with pytest.raises(CannotScoreError, match="1 class"):
        score(summed(torch.randn(20, 3), 0 * labels))


def test_a_class_with_one_voxel_does_not_count_in_gbc_and_leaves_the_others_finite():
    values, labels = drawn(9)
    labels[labels == 2] = torch.arange(30) % 2
    alone = labels.clone()
    alone[-1] = 3
    assert gbc(summed(values, alone)) == pytest.approx(gbc(summed(values[:-1], alone[:-1])), rel=1e-9)
    assert all(math.isfinite(score(summed(values, alone))) for score in (h_score, logme))
    with pytest.raises(CannotScoreError, match="1 class with at least 2 voxels"):
        gbc(summed(values[labels == 0], torch.tensor([1, *[0] * int((labels == 0).sum() - 1)])))


def test_sums_of_cases_are_those_of_their_voxels():
    values, labels = drawn(10)
    centre = torch.ones(5, dtype=torch.float64)
    parts = [moments(values[rows], labels[rows], 3, centre) for rows in (slice(0, 40), slice(40, 60), slice(60, 90))]
    together = total(parts, (2, 0, 1))
    chosen = torch.cat([torch.arange(40), torch.arange(40), torch.arange(60, 90)])
    expected = summed(values[chosen], labels[chosen])
    assert [score(together) for score in (h_score, logme, gbc)] == pytest.approx(
        [score(expected) for score in (h_score, logme, gbc)], rel=1e-9
    )
