"""The correction of the expected Dice by labelled cases, its interval, and the table."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from drawn_truth import dice_of, drawn
from scipy.special import expit, logit
from scipy.stats import t

from riskft.estimate.dice import WIDE, Interval, Line, fit_line, half_width, interval
from riskft.estimate.estimator import Estimator, fit_estimator
from riskft.estimate.evidence import evidence_of
from riskft.estimate.table import CaseEstimate, cases_csv, mean_risk, near_foreground, volumes_ml


def evidence(seed, share=1.0):
    probabilities, truth = drawn(seed, share, (40, 30, 20))
    return evidence_of(probabilities, None, {"a": (1,)}, truth, {"a": dice_of(probabilities, truth)})


def test_a_line_by_hand():
    expected, dice = expit([0.0, 2.0]), expit([1.0, 4.0])
    line = fit_line([*expected, 0.0, 0.5], [*dice, 0.0, math.nan])  # the last two do not count
    # residuals 1 and 2: (1 + 2) / (2 + 1); away from the centre -1 and 1: (-1 + 2) / (2 + 1)
    assert (line.centre, line.intercept, line.slope) == pytest.approx((1, 1, 1 + 1 / 3))
    assert line(expit(2.0)) == pytest.approx(expit(1 + 2 + 1 / 3))
    assert line(0.0) == 0
    assert fit_line([], []) == Line(0, 0, 1)
    assert fit_line([expit(1.0)], [expit(2.0)]).intercept == pytest.approx(0.5)  # one case: half of its residual


def test_an_interval_by_hand():
    estimated, dice = expit([0.0, 1.0, 2.0]), expit([0.3, 0.7, 2.3])
    assert half_width(estimated, dice) == pytest.approx(t.ppf(0.975, 2) * 0.3)
    assert half_width(estimated[:2], dice[:2]) == WIDE
    assert half_width(estimated, estimated) == pytest.approx(t.ppf(0.975, 2) * 0.1)
    assert interval(0.85, WIDE) == pytest.approx((0.85, expit(logit(0.85) - 1.5), expit(logit(0.85) + 1.5)))
    assert interval(0.0, WIDE) == (0, 0, 0)
    assert interval(0.999, WIDE) == pytest.approx((0.999, expit(logit(0.999) - 1.5), expit(logit(0.999) + 1.5)))
    for value in (1e-4, 0.9999):
        found = interval(value, 0.1)
        assert found.low < value < found.high


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_an_estimator_of_few_cases(count):
    cases = {f"case{seed}": evidence(seed, 0.6) for seed in range(count)}
    found = fit_estimator(cases)
    assert found.calibrated is bool(count)
    again = Estimator.from_json(json.loads(json.dumps(found.to_json())))
    assert again.to_json() == found.to_json()
    assert fit_estimator(dict(reversed(cases.items()))) == found
    unseen = evidence(50, 0.6)
    mean, by_class = found.dice(unseen)
    assert mean.value == pytest.approx(by_class["a"].value)
    assert mean.low < unseen.dice["a"] < mean.high
    off = abs(mean.value - unseen.dice["a"])
    assert off > 0.1 if count == 0 else off < 0.02  # a network that is too sure
    assert bool(found.left_out) is (count > 1)
    if count > 1:
        assert found.left_out["voxel_log_loss"] < found.left_out["voxel_log_loss_uncalibrated"]
        errors = [abs(found.left_out["dice"][name]["a"] - found.left_out["estimate"][name]["a"]) for name in cases]
        assert found.left_out["mean_absolute_error"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert found.width == WIDE if count < 3 else found.width < WIDE


def test_classes_without_a_value_do_not_count():
    probabilities, truth = drawn(0, size=(20, 20, 20))
    cases = {
        str(seed): evidence_of(probabilities, None, {"a": (1,), "b": (0,)}, truth, {"a": 0.7, "b": math.nan})
        for seed in range(3)
    }
    found = fit_estimator(cases)
    assert found.lines["b"] == Line()
    assert found.widths["b"] == WIDE
    assert found.left_out["dice"]["0"] == {"a": 0.7, "b": None}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ignored", [False, True])
def test_without_any_true_dice(ignored):
    probabilities, truth = drawn(0, size=(20, 20, 20))
    truth = np.full_like(truth, 255) if ignored else truth
    cases = {str(seed): evidence_of(probabilities, None, {"a": (1,)}, truth, {"a": math.nan}) for seed in range(2)}
    found = fit_estimator(cases)
    assert found.left_out["mean_absolute_error"] is None
    assert (found.left_out["voxel_log_loss"] is None) is ignored
    json.dumps(found.to_json(), allow_nan=False)


def test_volumes_of_a_large_scan_take_little_memory():
    classes = np.ones((100, 60, 50), dtype=np.uint8, order="F")
    tracemalloc.start()
    assert volumes_ml(classes, {"a": (1,)}, 0.001) == {"a": 300}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * classes.nbytes


def test_near_the_foreground():
    classes = np.zeros((20, 20, 20), dtype=np.uint8)
    classes[10, 10, 10] = 2
    near = near_foreground(classes, (1, 2.5, 10))  # 5 mm: 5, 2 and 1 voxels
    assert near.sum() == 11 * 5 * 3
    assert near[5, 8, 9]
    risk = np.where(near, 0.5, 0).astype(np.float32)
    assert mean_risk(risk, classes, (1, 2.5, 10)) == pytest.approx(0.5)
    assert math.isnan(mean_risk(risk, np.zeros_like(classes), (1, 1, 1)))
    assert volumes_ml(classes, {"a": (1,), "both": (1, 2)}, 0.025) == {"a": 0, "both": 0.025}


def test_the_table():
    def case(subject, risk, value):
        one = Interval(value, value / 2, 0.9)
        return CaseEstimate(subject, risk, one, {"a": one}, {"a": 1.23456})

    cases = [case("calm", 0.01, 0.8), case("empty", math.nan, 0.0), case("risky", 0.2, 0.4)]
    cases = [CaseEstimate.from_json(json.loads(json.dumps(one.to_json()))) for one in cases]
    assert cases_csv(cases, ["a"]).splitlines() == [
        "subject,mean_expected_risk,expected_dice,expected_dice_low,expected_dice_high,"
        "expected_dice_a,expected_dice_a_low,expected_dice_a_high,ml_a",
        "empty,,0.000,0.000,0.900,0.000,0.000,0.900,1.235",
        "risky,0.2000,0.400,0.200,0.900,0.400,0.200,0.900,1.235",
        "calm,0.0100,0.800,0.400,0.900,0.800,0.400,0.900,1.235",
    ]
