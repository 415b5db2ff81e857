"""Statistics against scipy, plain loops and hand-computed numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from riskft.analysis.statistics import (
    bootstrap_interval,
    case_means,
    holm,
    interval_over,
    signed_rank,
    wins_losses_ties,
)

# three seeds, eight cases: a fixed table
TABLE = np.array(
    [
        [0.031, -0.012, 0.044, 0.027, 0.003, -0.021, 0.052, 0.018],
        [0.022, -0.004, 0.039, -0.011, 0.014, 0.006, 0.047, 0.025],
        [0.040, -0.019, 0.031, 0.016, -0.008, -0.015, 0.060, 0.009],
    ]
)
GAP = math.nan


def by_loops(differences, replicates, seed):
    """The means of two-level replicates, drawn by indices one after the other."""
    rng = np.random.default_rng(seed)
    rows, columns = differences.shape
    means = []
    for _ in range(replicates):
        drawn = differences[np.ix_(rng.integers(rows, size=rows), rng.integers(columns, size=columns))]
        means.append(np.nanmean(drawn))
    return np.quantile(means, [0.025, 0.975])


def test_one_seed_is_scipys_bootstrap_over_cases():
    expected = stats.bootstrap(
        (TABLE[0],), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert bootstrap_interval(TABLE[:1]) == pytest.approx((expected.low, expected.high), abs=5e-4)
    assert interval_over(TABLE[:1]) == "cases alone"


def test_two_levels_are_as_drawn_one_by_one():
    with_gaps = TABLE.copy()
    with_gaps[0, 3] = with_gaps[2, 5] = with_gaps[2, 6] = GAP
    for table in (TABLE, with_gaps):
        np.testing.assert_allclose(bootstrap_interval(table), by_loops(table, 10_000, 7), atol=6e-4)
    assert interval_over(TABLE) == "seeds and cases"


def test_two_cases_by_hand():
    # the mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4
    assert bootstrap_interval(np.array([[0.0, 1.0]])) == (0, 1)
    assert bootstrap_interval(np.array([[0.0, 1.0]]), level=0.4) == (0.5, 0.5)
    assert bootstrap_interval(np.array([[0.0], [1.0]])) == (0, 1)
    assert interval_over(np.array([[0.0], [1.0]])) == "seeds alone"


def test_draws_that_hit_nothing_but_gaps_are_left_out():
    # two seeds with a case each: a draw of one seed and of the other's case is empty
    low, high = bootstrap_interval(np.array([[1.0, GAP], [GAP, 3.0]]))
    assert (low, high) == (1, 3)


def test_seeds_that_agree_do_not_make_the_interval_narrower():
    """The cases are the same in each seed: five trainings with one outcome say no more than one."""
    one, five = bootstrap_interval(TABLE[:1]), bootstrap_interval(np.repeat(TABLE[:1], 5, axis=0))
    assert five == pytest.approx(one, abs=1e-3)


def test_seeds_that_differ_make_the_interval_wider():
    shifted = TABLE[:1] + np.array([[-0.05], [0.0], [0.05]])
    low, high = bootstrap_interval(shifted)
    alone = bootstrap_interval(TABLE[:1])
    assert high - low > 1.5 * (alone[1] - alone[0])


def test_interval_is_the_same_each_time_and_ignores_rows_and_columns_of_gaps():
    padded = np.full((4, 9), GAP)
    padded[:3, :8] = TABLE
    assert bootstrap_interval(TABLE) == bootstrap_interval(TABLE) == bootstrap_interval(padded)
    assert interval_over(padded) == "seeds and cases"


@pytest.mark.parametrize("table", [np.empty((0, 4)), np.full((2, 3), GAP), np.array([[0.1, GAP]])])
def test_no_interval_below_two_pairs(table):
    assert all(math.isnan(end) for end in bootstrap_interval(table))
    assert interval_over(table) == "-"
    assert math.isnan(signed_rank(table))


def test_signed_rank_is_scipys_on_case_means():
    assert signed_rank(TABLE) == pytest.approx(stats.wilcoxon(TABLE.mean(0)).pvalue, rel=1e-12)
    # six differences of one sign: 2 of 2^6 arrangements are as extreme
    assert signed_rank(np.arange(1.0, 7)[None]) == pytest.approx(2 / 64)
    assert signed_rank(np.array([[0.0, *range(1, 7)]])) == pytest.approx(2 / 64)
    assert math.isnan(signed_rank(np.zeros((2, 5))))


def test_case_means_without_gaps():
    table = np.array([[1.0, GAP, 3.0, GAP], [3.0, 5.0, GAP, GAP]])
    np.testing.assert_array_equal(case_means(table), [2, 5, 3])


def test_holm_by_hand():
    # four tests, ascending: 4 * 0.005, 3 * 0.01, 2 * 0.03, 1 * 0.04 (not below the one before)
    assert holm([0.01, 0.04, 0.03, GAP, 0.005]) == pytest.approx([0.03, 0.06, 0.06, GAP, 0.02], nan_ok=True)
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []
    assert all(math.isnan(value) for value in holm([GAP, GAP]))


def test_wins_losses_and_ties_turn_round_with_the_metric():
    table = np.array([[1.0, 2.0, -1.0, 0.5, 0.1 + 0.2 - 0.3], [1.0, -1.0, -1.0, -0.5, 0.0]])
    assert wins_losses_ties(table, higher_is_better=True) == (2, 1, 2)
    assert wins_losses_ties(table, higher_is_better=False) == (1, 2, 2)
