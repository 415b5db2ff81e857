"""Paired comparison of two runs on the same test cases."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from riskft.errors import InputError

Key = tuple[str, str]


@dataclass(frozen=True)
class Paired:
    """Two runs compared on one class and metric; a case counts where both have a value.

    Attributes:
        class_name: The class.
        count: Pairs.
        baseline: The baseline's mean.
        other: The other run's mean.
        difference: Mean of the paired differences, other - baseline.
        low: Lower end of the 95 % confidence interval of the difference (Student's t), NaN below two pairs.
        high: Upper end.
        p_value: Two-sided Wilcoxon signed-rank test, NaN where all differences are 0 or there are fewer than two.
    """

    class_name: str
    count: int
    baseline: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float


def read_cases(path: Path, metric: str = "dice") -> dict[Key, float]:
    """Reads one metric of a run's ``cases.csv``, by subject and class.

    Raises:
        InputError: If the file or the column is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Run `riskft test` for this run first.")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or metric not in rows[0]:
        raise InputError(f"{path}: has no column '{metric}', expected a cases.csv that `riskft test` wrote.")
    return {(row["subject"], row["class_name"]): float(row[metric]) for row in rows}


def compare_paired(baseline: dict[Key, float], other: dict[Key, float]) -> list[Paired]:
    """Compares two runs class by class.

    Args:
        baseline: Values by (subject, class).
        other: The other run's.
    """
    names = dict.fromkeys(name for _, name in baseline)
    return [_compare_class(name, baseline, other) for name in names]


def _compare_class(name: str, baseline: dict[Key, float], other: dict[Key, float]) -> Paired:
    keys = [key for key in baseline if key[1] == name and key in other]
    pairs = np.array([(baseline[key], other[key]) for key in keys]).reshape(-1, 2)
    pairs = pairs[~np.isnan(pairs).any(1)]
    if not len(pairs):
        return Paired(name, 0, *(math.nan,) * 6)
    differences = pairs[:, 1] - pairs[:, 0]
    low = high = p_value = math.nan
    if len(differences) > 1:
        low, high = _interval(differences)
        if np.any(differences != 0):
            p_value = float(stats.wilcoxon(differences).pvalue)
    first, second = pairs.mean(0)
    return Paired(name, len(pairs), float(first), float(second), float(differences.mean()), low, high, p_value)


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    error = float(stats.sem(differences))
    if error == 0:
        return float(np.mean(differences)), float(np.mean(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=np.mean(differences), scale=error)
    return float(low), float(high)
