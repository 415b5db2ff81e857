"""Normalisations against numpy and scipy, weight functions by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from riskft.risk.distribution import ClassDistribution
from riskft.risk.weighting import (
    ExponentialWeight,
    LinearWeight,
    MinMaxNormalise,
    Normalise,
    PowerWeight,
    QuantileNormalise,
    RankNormalise,
    WeightFunction,
    mean_weight,
)


def one_class(values: Tensor) -> tuple[Tensor, ClassDistribution]:
    classes = torch.zeros(len(values), dtype=torch.long)
    own = ClassDistribution(1)
    own.update(values, classes)
    return classes, own


def normalised(normalise: Normalise, values: Tensor) -> Tensor:
    classes, own = one_class(values)
    return normalise(values, classes, own)


def random_values(seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gamma(0.5, 0.4, 3000).clip(0, 27.6))


@pytest.mark.parametrize("seed", range(3))
def test_min_max_against_numpy(seed: int) -> None:
    values = random_values(seed)
    expected = (values - values.min()) / (values.max() - values.min())
    torch.testing.assert_close(normalised(MinMaxNormalise(), values), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("q", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("seed", range(3))
def test_quantile_against_numpy(seed: int, q: float) -> None:
    values = random_values(seed)
    top = float(np.quantile(values.numpy(), q, method="inverted_cdf"))
    expected = ((values - values.min()) / (top - values.min())).clamp(0, 1)
    got = normalised(QuantileNormalise(q), values)
    torch.testing.assert_close(got, expected, rtol=0.003, atol=1e-6)
    assert float(got.min()) == 0
    assert float(got.max()) == 1


@pytest.mark.parametrize("resolution", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_rank_against_scipy(seed: int, resolution: float) -> None:
    values = random_values(seed)
    binned = ClassDistribution.bin_centres()[ClassDistribution.bin_of(values)].numpy()
    if resolution:  # values within the resolution are ties: half of them count as smaller
        distance = binned[:, None] - binned[None]
        expected = ((distance > resolution).mean(1) + (distance >= -resolution).mean(1)) / 2
    else:
        expected = (rankdata(binned, method="average") - 0.5) / len(values)
    np.testing.assert_allclose(normalised(RankNormalise(resolution), values).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(0.9), RankNormalise(), RankNormalise(0)])
def test_normalised_values_are_monotone_and_in_the_unit_interval(normalise: Normalise) -> None:
    values = random_values(8).sort().values
    n = normalised(normalise, values)
    assert bool((n.diff() >= 0).all())
    assert 0 <= float(n.min()) < float(n.max()) <= 1


def test_classes_are_normalised_by_their_own_distribution() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 10.0, 20.0, 40.0], dtype=torch.float64)
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    own = ClassDistribution(2)
    own.update(values, classes)
    assert MinMaxNormalise()(values, classes, own).tolist() == pytest.approx([0, 0.5, 1, 0, 1 / 3, 1])
    assert RankNormalise(0)(values, classes, own).tolist() == pytest.approx([1 / 6, 3 / 6, 5 / 6] * 2)


def test_values_beyond_the_distribution_are_clipped() -> None:
    _, own = one_class(torch.tensor([1.0, 3.0], dtype=torch.float64))
    values, classes = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    assert MinMaxNormalise()(values, classes, own).tolist() == [0, 0.5, 1]
    assert RankNormalise()(values, classes, own).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    "normalise", [MinMaxNormalise(), QuantileNormalise(), QuantileNormalise(0.5), RankNormalise(), RankNormalise(0)]
)
@pytest.mark.parametrize("values", [[0.0] * 9, [0.7], [2.5, 2.5]])
def test_class_of_one_value(normalise: Normalise, values: list[float]) -> None:
    n = normalised(normalise, torch.tensor(values, dtype=torch.float64))
    expected = 0.5 if isinstance(normalise, RankNormalise) else 0.0
    assert n.tolist() == [expected] * len(values)


@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(), RankNormalise()])
def test_class_that_the_training_cases_do_not_have(normalise: Normalise) -> None:
    own = ClassDistribution(2)
    own.update(torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([0, 0]))
    n = normalise(torch.tensor([0.7, 3.0], dtype=torch.float64), torch.tensor([1, 1]), own)
    assert n.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (ExponentialWeight(10), [1, math.sqrt(10), 10]),
        (ExponentialWeight(2), [1, 1.414214, 2]),
        (ExponentialWeight(1), [1, 1, 1]),
        (LinearWeight(1), [1, 1.5, 2]),
        (LinearWeight(4), [1, 3, 5]),
        (LinearWeight(0), [1, 1, 1]),
        (PowerWeight(), [0.5, 0.875, 3.5]),  # 0.5 + 3 n^3
        (PowerWeight(0.3, 5, 4), [0.3, 0.6125, 5.3]),  # 0.3 + 5 n^4
        (PowerWeight(1, 0, 1), [1, 1, 1]),
    ],
)
def test_weight_functions(weight: WeightFunction, expected: list[float]) -> None:
    got = weight(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantileNormalise(0), "`q` to be in"),
        (lambda: QuantileNormalise(1.5), "`q` to be in"),
        (lambda: QuantileNormalise(-0.1), "`q` to be in"),
        (lambda: RankNormalise(-0.01), "`resolution` to be at least 0"),
        (lambda: ExponentialWeight(0.5), "`base` to be at least 1"),
        (lambda: LinearWeight(-1), "`alpha` to be at least 0"),
        (lambda: PowerWeight(floor=0), "`floor` to be positive"),
        (lambda: PowerWeight(floor=-1), "`floor` to be positive"),
        (lambda: PowerWeight(gain=-1), "`gain`"),
        (lambda: PowerWeight(exponent=0), "`exponent` to be positive"),
    ],
)
def test_bad_options(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected argument {message}"):
        make()  # type: ignore[operator]


def test_one_bad_voxel_flattens_min_max_and_clipping_helps() -> None:
    # 9,999 voxels whose hardness is exponentially distributed with a median of 0.0717 nats, and one at 27.6
    share = (torch.arange(9999, dtype=torch.float64) + 0.5) / 9999
    values = torch.cat([-torch.log1p(-share) * 0.0717 / math.log(2), torch.tensor([27.6], dtype=torch.float64)])
    plain = ExponentialWeight(10)(normalised(MinMaxNormalise(), values))
    assert float(plain.max()) == pytest.approx(10)
    assert float(plain.median()) == pytest.approx(1.006, abs=5e-4)  # 10^(.0717 / 27.6)
    assert float(plain.quantile(0.95)) == pytest.approx(1.026, abs=1e-3)
    clipped = ExponentialWeight(10)(normalised(QuantileNormalise(0.999), values))
    assert float(clipped.max()) == pytest.approx(10)
    # the 99.9th percentile of an exponential distribution is log2(1000) medians: 10^(1 / 9.966)
    assert float(clipped.median()) == pytest.approx(1.26, abs=0.01)
    assert float(clipped.quantile(0.95)) == pytest.approx(10 ** (math.log(20) / math.log(1000)), rel=0.01)


def test_mean_weight_by_hand() -> None:
    values = torch.tensor([0.0, 1.0, 2.0, 5.0], dtype=torch.float64)
    classes = torch.tensor([0, 0, 0, 2])
    own = ClassDistribution(3)
    own.update(values, classes)
    # class 0: n = 0, .5, 1 -> w = 1, 2, 3; class 1 is empty; class 2 has one value: n = 0
    mean = mean_weight(MinMaxNormalise(), LinearWeight(2), own, own)
    assert mean.tolist() == pytest.approx([2, 1, 1], rel=0.002)


@pytest.mark.parametrize("normalise", [MinMaxNormalise(), QuantileNormalise(0.99), RankNormalise(), RankNormalise(0)])
@pytest.mark.parametrize("weight", [ExponentialWeight(10), LinearWeight(3), PowerWeight()])
def test_mean_weight_of_random_values(normalise: Normalise, weight: WeightFunction) -> None:
    values = random_values(11)
    classes, own = one_class(values)
    exact = float(weight(normalise(values, classes, own)).mean())
    assert float(mean_weight(normalise, weight, own, own)) == pytest.approx(exact, rel=0.002)
