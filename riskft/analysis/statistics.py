"""Statistics of paired differences: bootstrap intervals, a rank test, and a correction for multiple tests.

The bootstrap is our own because scipy resamples one axis only; this one resamples seeds and cases, and allows missing
pairs. Holm's method is our own because statsmodels is a large dependency for a few lines.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from riskft.analysis.pairs import Matrix

REPLICATES = 10_000
TIE = 1e-12  #: Differences up to this size are ties, because rounding can turn 0 into one.


def mean(values: Matrix) -> float:
    """Returns the mean of all values but NaN; NaN if there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else math.nan


def bootstrap_interval(
    differences: Matrix, replicates: int = REPLICATES, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile interval of the mean difference by a two-level bootstrap; NaN for fewer than two pairs.

    Each replicate draws seeds and cases with replacement, and averages over all pairs of a drawn seed and a drawn case.
    All seeds share the drawn cases, as they share the cases themselves: separate draws for each seed would make the
    variance over cases shrink with the number of seeds. With one seed it is the bootstrap over cases alone, and with
    one case over seeds alone. The differences are (seeds, cases), NaN where there is no pair.
    """
    present = ~np.isnan(differences)
    if present.sum() < 2:
        return math.nan, math.nan
    differences, present = (part[present.any(1)][:, present.any(0)] for part in (differences, present))
    filled = np.where(present, differences, 0.0)
    generator = np.random.default_rng(seed)
    rows, columns = differences.shape
    seeds = generator.multinomial(rows, np.full(rows, 1 / rows), replicates).astype(float)
    cases = generator.multinomial(columns, np.full(columns, 1 / columns), replicates).astype(float)
    total = ((seeds @ filled) * cases).sum(1)
    count = ((seeds @ present.astype(float)) * cases).sum(1)
    means = total[count > 0] / count[count > 0]  # a draw may contain missing pairs only
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_over(differences: Matrix) -> str:
    """Says what the bootstrap draws: ``seeds and cases``, ``cases alone``, ``seeds alone``, or ``-`` for nothing."""
    present = ~np.isnan(differences)
    seeds, cases = present.any(1).sum(), present.any(0).sum()
    if seeds > 1:
        return "seeds and cases" if cases > 1 else "seeds alone"
    return "cases alone" if cases > 1 else "-"


def case_means(differences: Matrix) -> Matrix:
    """Returns each case's mean over seeds, (cases,), without cases that have no pair."""
    means: Matrix = np.nanmean(differences[:, ~np.isnan(differences).all(0)], axis=0)
    return means


def signed_rank(differences: Matrix) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test on the cases' means over seeds.

    Cases without a difference are left out, as in Wilcoxon's paper. NaN if fewer than two cases remain.
    """
    means = case_means(differences)
    means = means[np.abs(means) > TIE]
    # rounding must not break ties between equal differences
    return float(stats.wilcoxon(np.round(means, 12)).pvalue) if len(means) > 1 else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted by Holm's step-down method; NaN stays NaN and does not count."""
    values = np.asarray(p_values, dtype=float)
    valid = np.flatnonzero(~np.isnan(values))
    order = valid[np.argsort(values[valid], kind="stable")]
    steps = values[order] * (len(order) - np.arange(len(order)))
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(order) else []
    return [float(value) for value in adjusted]


def wins_losses_ties(differences: Matrix, higher_is_better: bool) -> tuple[int, int, int]:
    """Counts the cases where the method is better than, worse than and equal to the baseline, by means over seeds."""
    means = case_means(differences) * (1 if higher_is_better else -1)
    return int((means > TIE).sum()), int((means < -TIE).sum()), int((np.abs(means) <= TIE).sum())
