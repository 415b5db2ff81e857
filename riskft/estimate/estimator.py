"""The estimate as a whole: fitted on labelled cases, tried on each of them left out, and kept as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from riskft.estimate.calibration import RiskCalibration, fit_offset, fit_risk, log_loss
from riskft.estimate.dice import WIDE, Interval, Line, expected_dice, fit_line, half_width, interval, mean_over_classes
from riskft.estimate.evidence import CaseEvidence

VERSION = 1
Dice = Mapping[str, float]


@dataclass(frozen=True)
class Estimator:
    """Estimates the risk of voxels and the Dice of cases. The default is uncalibrated."""

    risk: RiskCalibration = RiskCalibration()  # noqa: RUF009 - frozen
    case_risk: RiskCalibration = RiskCalibration()  # noqa: RUF009 - frozen
    """For the Dice of cases, see ``fit_offset``."""
    lines: Mapping[str, Line] = field(default_factory=dict)  #: Corrections of the expected Dice by class or region.
    widths: Mapping[str, float] = field(default_factory=dict)  #: Half widths of their intervals, logit scale.
    width: float = WIDE  #: Half width of the interval of the mean over classes.
    has_eep: bool = False  #: Whether the EEP's entropy is used.
    cases: tuple[str, ...] = ()  #: The labelled cases.
    #: From each case left out in turn: Dice and estimate by case, mean absolute error, log loss of the voxels (nats),
    #: and that of the network's own probabilities; None without a value. Empty with fewer than two cases.
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether there were labelled cases."""
        return bool(self.cases)

    def dice(self, case: CaseEvidence) -> tuple[Interval, dict[str, Interval]]:
        """Returns the estimated Dice of a case: the mean over classes, and by class or region."""
        corrected = {
            name: self.lines.get(name, Line())(value) for name, value in expected_dice(case, self.case_risk).items()
        }
        by_class = {name: interval(value, self.widths.get(name, WIDE)) for name, value in corrected.items()}
        return interval(mean_over_classes(corrected), self.width), by_class

    def to_json(self) -> dict[str, Any]:
        """Returns the estimator as JSON types."""
        return {"version": VERSION, **asdict(self), "cases": list(self.cases)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Estimator":
        """Reads what ``to_json`` returned; raises KeyError, TypeError or ValueError if it is something else."""
        if content["version"] != VERSION:
            raise ValueError("another version")
        return cls(
            RiskCalibration(**content["risk"]),
            RiskCalibration(**content["case_risk"]),
            {name: Line(**line) for name, line in content["lines"].items()},
            {name: float(width) for name, width in content["widths"].items()},
            float(content["width"]),
            bool(content["has_eep"]),
            tuple(content["cases"]),
            dict(content["left_out"]),
        )


def fit_estimator(cases: Mapping[str, CaseEvidence]) -> Estimator:
    """Fits the estimator on labelled cases by subject, in any order.

    The Dice is corrected by estimates of cases that the risk was not fitted on; a single case is corrected by itself.
    """
    if not cases:
        return Estimator()
    names = sorted(cases)
    evidence = [cases[name] for name in names]
    several = len(names) > 1
    others = [[*evidence[:i], *evidence[i + 1 :]] if several else evidence for i in range(len(evidence))]
    expected = [expected_dice(case, fit_offset(rest)) for case, rest in zip(evidence, others, strict=True)]
    classes = list(evidence[0].scored)
    # one estimate per case, from the other cases
    estimates = [
        {name: _line(name, expected, evidence, without=i)(expected[i][name]) for name in classes}
        for i in range(len(names))
    ]
    widths, width, left_out = {}, WIDE, {}
    if several:
        true = [case.dice for case in evidence]
        widths = {name: half_width([e[name] for e in estimates], [d[name] for d in true]) for name in classes}
        pairs = [(_shared_mean(e, d), mean_over_classes(d)) for e, d in zip(estimates, true, strict=True)]
        width = half_width(*zip(*pairs, strict=True))
        risks = [fit_risk(rest) for rest in others]
        left_out = {
            "dice": {name: _plain(case.dice) for name, case in zip(names, evidence, strict=True)},
            "estimate": {name: _plain(found) for name, found in zip(names, estimates, strict=True)},
            "mean_absolute_error": _mean(abs(a - b) for a, b in pairs),
            "voxel_log_loss": _mean(log_loss(*pair) for pair in zip(evidence, risks, strict=True)),
            "voxel_log_loss_uncalibrated": _mean(log_loss(case, RiskCalibration()) for case in evidence),
        }
    lines = {name: _line(name, expected, evidence) for name in classes}
    risk, case_risk, has_eep = fit_risk(evidence), fit_offset(evidence), evidence[0].has_eep
    return Estimator(risk, case_risk, lines, widths, width, has_eep, tuple(names), left_out)


def _line(name: str, expected: Sequence[Dice], cases: Sequence[CaseEvidence], without: int | None = None) -> Line:
    used = [i for i in range(len(cases)) if i != without]
    return fit_line([expected[i][name] for i in used], [cases[i].dice[name] for i in used])


def _shared_mean(estimate: Dice, dice: Dice) -> float:
    """Returns the mean of an estimate over the classes whose true Dice has a value."""
    return mean_over_classes({name: value for name, value in estimate.items() if not np.isnan(dice[name])})


def _plain(dice: Dice) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in dice.items()}


def _mean(values: Iterable[float]) -> float | None:
    finite = [value for value in values if np.isfinite(value)]
    return _finite(float(np.mean(finite))) if finite else None


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
