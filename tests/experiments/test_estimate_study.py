"""The study of the expected Dice: its predictors and scores by hand."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

PATH = Path(__file__).resolve().parents[2] / "experiments/estimate/measure.py"
spec = importlib.util.spec_from_file_location("measure_estimate", PATH)
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)


def case(classes):
    return measure.Case("case", None, 0.1, classes, {})


def test_voxel_scores():
    values = np.arange(40, dtype=np.float32)
    wrong = np.zeros(40, dtype=bool)
    wrong[[39, 10]] = True  # the riskiest 5 % are 39 and 38
    auroc, share = measure.voxel_scores(values, wrong)
    assert share == 0.5
    assert auroc == pytest.approx((38 + 10) / (2 * 38))
    assert math.isnan(measure.voxel_scores(values, np.zeros(40, dtype=bool))[1])


def test_the_agreement_of_seeds():
    one, two, three = (np.array(values, dtype=np.uint8) for values in ([1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0]))
    scored = {"a": (1,), "b": (2,)}
    assert measure.agreement(case(one), [case(two)], scored) == pytest.approx((2 / 3 + 1) / 2)
    assert measure.agreement(case(one), [case(two), case(three)], scored) == pytest.approx(((2 / 3 + 1) / 2 + 0) / 2)


def test_a_regression():
    # standardised -1 and 1, logits of Dice 2 and 0: slope (-1 - 1) / (2 + 1)
    found = measure.regressed([0.1, 0.3], expit([2.0, 0.0]), [0.2, 0.4])
    assert found == pytest.approx(expit([1.0, 1.0 - 2 * 2 / 3]))
    assert measure.regressed([0.1], [0.8], [0.5]) == pytest.approx([0.8])
