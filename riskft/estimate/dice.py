"""Expected Dice of a prediction, its correction by labelled cases, and its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from riskft.estimate.calibration import RiskCalibration
from riskft.estimate.evidence import CaseEvidence

FEWEST = 3  #: With fewer labelled cases, the interval is ``WIDE``.
WIDE = 1.5  #: Half width on the logit scale without enough cases: 0.85 has the interval 0.56 to 0.96.
LEAST = 0.1  #: The smallest standard deviation of the residuals: few cases may agree by chance.
_EDGE = 0.01  #: Dice is kept this far from 0 and 1 on the logit scale.


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def expected_dice(case: CaseEvidence, risk: RiskCalibration) -> dict[str, float]:
    """Returns, by class or region, the Dice of the expected numbers of voxels; 0 where no voxel is predicted."""
    wrong = risk(*case.features())
    result = {}
    for name, found in case.scored.items():
        predicted = float(found.predicted.sum())
        both = float((found.predicted * (1 - wrong) + found.inside * wrong).sum())
        true = both + float((found.outside * wrong).sum())
        result[name] = 2 * both / (predicted + true) if predicted else 0.0
    return result


@dataclass(frozen=True)
class Line:
    """logit(Dice) = intercept + x + (slope - 1) (x - centre), x = logit(expected Dice)."""

    centre: float = 0.0
    intercept: float = 0.0
    slope: float = 1.0

    def __call__(self, expected: float) -> float:
        """Returns the corrected Dice; 0 stays 0, because the class is not predicted."""
        if expected <= 0:
            return 0.0
        x = to_logit(expected)
        return float(expit(self.intercept + x + (self.slope - 1) * (x - self.centre)))


def fit_line(expected: Sequence[float], dice: Sequence[float]) -> Line:
    """Fits a line to the expected and the true Dice of labelled cases.

    The intercept is shrunk to 0 and the slope to 1, each as if one more case agreed with the prior. Cases without a
    true value, or in which nothing is predicted, do not count.
    """
    pairs = [(a, b) for a, b in zip(expected, dice, strict=True) if a > 0 and not math.isnan(b)]
    if not pairs:
        return Line()
    x, y = (np.array([to_logit(value) for value in values]) for values in zip(*pairs, strict=True))
    away, residual = x - x.mean(), y - x
    slope = 1 + float((away * residual).sum() / ((away**2).sum() + 1))
    return Line(float(x.mean()), float(residual.sum() / (len(x) + 1)), slope)


def half_width(estimated: Sequence[float], dice: Sequence[float]) -> float:
    """Returns the half width of the 95 % interval on the logit scale, from left-out estimates and true values."""
    pairs = [(a, b) for a, b in zip(estimated, dice, strict=True) if a > 0 and not math.isnan(b)]
    if len(pairs) < FEWEST:
        return WIDE
    residual = np.array([to_logit(a) - to_logit(b) for a, b in pairs])
    deviation = max(LEAST, float(np.sqrt((residual**2).mean())))
    return float(t.ppf(0.975, len(pairs) - 1)) * deviation


def interval(value: float, width: float) -> Interval:
    """Returns an estimate with its interval; the width is half of it on the logit scale."""
    if value <= 0 or math.isnan(value):
        return Interval(value, value, value)
    centre = float(logit(min(max(value, 1e-9), 1 - 1e-9)))  # not kept as far from 0 and 1 as in ``to_logit``
    return Interval(value, *(float(expit(centre + sign * width)) for sign in (-1, 1)))


def mean_over_classes(dice: Mapping[str, float]) -> float:
    """Returns the mean over classes that have a value, or NaN."""
    values = [value for value in dice.values() if not math.isnan(value)]
    return float(np.mean(values)) if values else math.nan


def to_logit(dice: float) -> float:
    """Returns the logit of a Dice, kept away from 0 and 1."""
    return float(logit(np.clip(dice, _EDGE, 1 - _EDGE)))
