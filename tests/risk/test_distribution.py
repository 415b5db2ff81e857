"""Distributions inside classes, checked against numpy and scipy."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from riskft.risk.distribution import BINS, ClassDistribution

BIN = 0.0025  # relative width of a bin above 1e-5


def sample(seed: int = 0, size: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Values from 1e-7 to 30 and some negative ones, in three classes, of which class 1 is empty."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(-3, 2.5, size).clip(1e-7, 30) * rng.choice([1, 1, 1, -1], size)
    return torch.from_numpy(values), torch.from_numpy(rng.choice([0, 2, 3], size, p=[0.7, 0.25, 0.05]))


def distribution(values: torch.Tensor, classes: torch.Tensor, num_classes: int = 4) -> ClassDistribution:
    result = ClassDistribution(num_classes)
    result.update(values, classes)
    return result


def test_counts_and_extremes() -> None:
    own = distribution(torch.tensor([0.5, 0.1, 3.0, 0.1]), torch.tensor([0, 0, 2, 0]), 3)
    assert own.counts.sum(1).tolist() == [3, 0, 1]
    assert own.counts.dtype == torch.int64
    assert int(own.counts[0].max()) == 2  # the two 0.1
    torch.testing.assert_close(own.low, torch.tensor([0.1, torch.inf, 3.0], dtype=torch.float64))
    torch.testing.assert_close(own.high, torch.tensor([0.5, -torch.inf, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("value", [-200.0, -1.0, -1e-5, -1e-9, 0.0, 1e-9, 1e-6, 1e-5, 0.01, 1.0, 27.631, 200.0])
def test_a_value_is_close_to_the_middle_of_its_bin(value: float) -> None:
    own = ClassDistribution.bin_of(torch.tensor([value]))
    centre = float(ClassDistribution.bin_centres()[own])
    assert centre == pytest.approx(value, rel=BIN / 2, abs=2e-9)


def test_bins_are_in_the_order_of_values() -> None:
    values = torch.linspace(-3, 30, 5001, dtype=torch.float64)
    assert bool((ClassDistribution.bin_of(values).diff() >= 0).all())
    centres = ClassDistribution.bin_centres()
    assert torch.equal(ClassDistribution.bin_of(centres), torch.arange(BINS))


def test_the_bins_of_floats_are_those_of_doubles() -> None:
    """Those of float32 come from a table."""
    bits = torch.arange(0, 0x43100000, 1009, dtype=torch.int32)
    for values in (bits.view(torch.float32), -bits.view(torch.float32), torch.tensor([-0.0, 1e30, torch.inf])):
        assert torch.equal(ClassDistribution.bin_of(values), ClassDistribution.bin_of(values.double()))
    # on both sides of each edge between bins
    edges = torch.sinh((torch.arange(1, BINS) * (40 / BINS)) - 20).double() * 1e-6
    near = torch.stack([edges.float(), edges.float() * (1 - 1e-7), edges.float() * (1 + 1e-7)])
    assert torch.equal(ClassDistribution.bin_of(near), ClassDistribution.bin_of(near.double()))


@pytest.mark.parametrize("value", [1e9, -1e9, torch.inf])
def test_values_beyond_all_bins_are_kept_in_the_last(value: float) -> None:
    own = distribution(torch.tensor([value]), torch.tensor([0]), 1)
    assert int(own.counts.sum()) == 1
    assert int(own.counts[0, -1 if value > 0 else 0]) == 1


@pytest.mark.parametrize("q", [0.001, 0.05, 0.25, 0.5, 0.9, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_quantile_against_numpy(seed: int, q: float) -> None:
    values, classes = sample(seed)
    got = distribution(values, classes).quantile(q)
    for index in (0, 2, 3):
        expected = np.quantile(values[classes == index].numpy(), q, method="inverted_cdf")
        assert float(got[index]) == pytest.approx(expected, rel=BIN, abs=3e-9)


def test_quantile_stays_inside_the_values() -> None:
    # both values lie beside the middle of their bins
    own = distribution(torch.tensor([0.3, 0.3]), torch.tensor([0, 0]), 1)
    assert [float(own.quantile(q)) for q in (0.01, 0.5, 1.0)] == pytest.approx([0.3] * 3, abs=1e-7)


def test_rank_against_scipy_with_ties() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 20, 500) * 0.07  # each value has bins of its own
    classes = rng.integers(0, 2, 500)
    own = distribution(torch.from_numpy(values), torch.from_numpy(classes), 2)
    ranks = own.rank_of_bin()[classes, ClassDistribution.bin_of(torch.from_numpy(values))].numpy()
    for index in range(2):
        inside = classes == index
        expected = (rankdata(values[inside], method="average") - 0.5) / inside.sum()
        np.testing.assert_allclose(ranks[inside], expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_rank_against_scipy_on_any_values(seed: int) -> None:
    values, classes = sample(seed)
    own = distribution(values, classes)
    ranks = own.rank_of_bin()[classes, ClassDistribution.bin_of(values)]
    for index in (0, 2, 3):
        inside = classes == index
        expected = (rankdata(values[inside].numpy()) - 0.5) / int(inside.sum())
        # values share a rank only within a bin
        tolerance = int(own.counts[index].max()) / 2 / int(inside.sum())
        np.testing.assert_allclose(ranks[inside].numpy(), expected, atol=tolerance, rtol=0)


def test_mean_rank_is_one_half() -> None:
    values, classes = sample(5)
    own = distribution(values, classes)
    for resolution in (0.0, 0.01, 1.0):
        mean = (own.rank_of_bin(resolution) * own.counts).sum(1)[[0, 2, 3]] / own.counts.sum(1)[[0, 2, 3]]
        torch.testing.assert_close(mean, torch.full((3,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (0.0, [0.125, 0.375, 0.625, 0.875]),
        (0.01, [0.375, 0.375, 0.375, 0.875]),  # .001, .002 and .004 are ties: 1.5 of 4
        (0.0025, [0.25, 0.375, 0.5, 0.875]),  # .002 is a tie of both, which are none of each other
        (10.0, [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_rank_resolution(resolution: float, expected: list[float]) -> None:
    values = torch.tensor([0.001, 0.002, 0.004, 1.0])
    own = distribution(values, torch.zeros(4, dtype=torch.long), 1)
    got = own.rank_of_bin(resolution)[0, ClassDistribution.bin_of(values)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_merging_is_exact_in_any_order() -> None:
    values, classes = sample(9)
    whole = distribution(values, classes)
    bounds = [(0, 1500), (1500, 1501), (1501, 1501), (1501, 4000)]
    for order in itertools.permutations(bounds):
        merged = ClassDistribution(4)
        for start, stop in order:
            merged.merge(distribution(values[start:stop], classes[start:stop]))
        for name in ("counts", "low", "high"):
            assert torch.equal(getattr(merged, name), getattr(whole, name))


def test_pooled_is_the_distribution_without_classes() -> None:
    values, classes = sample(2)
    pooled = distribution(values, classes).pooled()
    alone = distribution(values, torch.zeros_like(classes), 1)
    assert pooled.num_classes == 4
    for index in range(4):
        assert torch.equal(pooled.counts[index], alone.counts[0])
        assert pooled.low[index] == alone.low[0]
        assert pooled.high[index] == alone.high[0]


def test_counts_alone_give_the_distribution_to_a_bin_s_width() -> None:
    values = torch.tensor([0.1, 0.1, 2.0, 0.3], dtype=torch.float64)
    classes = torch.tensor([0, 0, 0, 2])
    whole = ClassDistribution(3)
    whole.update(values, classes)
    again = ClassDistribution.of_counts(whole.counts)
    assert torch.equal(again.counts, whole.counts)
    torch.testing.assert_close(again.low, whole.low, rtol=3e-3, atol=0)
    torch.testing.assert_close(again.high, whole.high, rtol=3e-3, atol=0)
    assert again.low[1] == torch.inf
    assert torch.equal(again.rank_of_bin(), whole.rank_of_bin())


def test_empty_class_gives_finite_ranks() -> None:
    own = distribution(torch.tensor([1.0]), torch.tensor([0]), 2)
    assert float(own.rank_of_bin()[1].abs().max()) == 0
    assert not bool(own.quantile(0.5).isnan().any())
