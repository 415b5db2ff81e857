"""P(wrong) from entropies: the scale, the counts, and a calibration that must find what the truth was drawn from."""

import numpy as np
import pytest
from drawn_truth import dice_of, drawn
from scipy.special import expit, logit

from riskft.estimate.calibration import RiskCalibration, fit_offset, fit_risk, log_loss, risk_map
from riskft.estimate.dice import expected_dice
from riskft.estimate.evidence import BINS, LOWEST, CaseEvidence, bin_logits, entropy, error_logit, evidence_of

SCORED = {"a": (1,), "b": (2,)}


def volume(*voxels):
    """Probabilities (K, X, 1, 1) from one tuple per voxel."""
    return np.array(voxels, dtype=np.float32).T[:, :, None, None]


def test_entropy_by_hand():
    nats = entropy(volume((0.5, 0.5, 0), (1, 0, 0), (0.25, 0.25, 0.5)))
    np.testing.assert_allclose(nats.ravel(), [np.log(2), 0, 1.5 * np.log(2)], rtol=1e-6)


def test_the_scale_is_the_logit_of_the_error():
    # with two classes, of the less probable one
    error = np.array([1e-4, 0.01, 0.3, 0.5])
    two = -(error * np.log(error) + (1 - error) * np.log(1 - error))
    np.testing.assert_allclose(error_logit(two, 2), logit(error), atol=0.01)
    # with three, half of the error is each other class
    three = -(0.1 * 2 * np.log(0.1) + 0.8 * np.log(0.8))
    np.testing.assert_allclose(
        error_logit(np.array([three, np.log(3), 0]), 3), [logit(0.2), np.log(2), LOWEST], atol=0.01
    )


def test_counts_by_hand():
    probabilities = volume((0.6, 0.3, 0.1), (0.1, 0.6, 0.3), (0.3, 0.1, 0.6), (0.6, 0.3, 0.1))
    truth = np.array([1, 1, 0, 255], dtype=np.uint8)[:, None, None]
    found = evidence_of(probabilities, None, {**SCORED, "both": (1, 2)}, truth, {"a": 0.5})
    assert found.voxels.shape == (BINS, 1)
    assert (found.voxels.sum(), found.wrong.sum()) == (3, 2)
    at = np.abs(bin_logits(3) - error_logit(entropy(probabilities)[0, 0], 3)).argmin()
    assert found.voxels[at, 0] == 3  # all have the same entropy
    sums = {
        name: tuple(float(part.sum()) for part in (one.predicted, one.inside, one.outside))
        for name, one in found.scored.items()
    }
    # shares of the 0.4 that the other classes have
    np.testing.assert_allclose(sums["a"], (1, 0, 0.3 / 0.4 + 0.1 / 0.4), rtol=1e-6)
    np.testing.assert_allclose(sums["b"], (1, 0, 0.1 / 0.4 + 0.3 / 0.4), rtol=1e-6)
    np.testing.assert_allclose(sums["both"], (2, 0.3 / 0.4 + 0.1 / 0.4, 1), rtol=1e-6)


def test_counts_by_the_eep_s_entropy_too():
    probabilities = volume((0.5, 0.5), (0.5, 0.5), (1, 0))
    eep = np.array([0, np.log(2), np.log(2)], dtype=np.float32)[:, None, None]
    voxels = evidence_of(probabilities, eep, {"a": (1,)}).voxels
    assert (voxels[-1, 0], voxels[-1, -1], voxels[0, -1], voxels.sum()) == (1, 1, 1, 3)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_calibration_finds_what_the_truth_was_drawn_from(share):
    cases = []
    for seed in range(3):
        probabilities, truth = drawn(seed, share)
        eep = np.random.default_rng(seed).uniform(0, np.log(2), truth.shape).astype(np.float32)  # knows nothing
        cases.append(evidence_of(probabilities, eep, {"a": (1,)}, truth))
    fitted = fit_risk(cases)
    assert (fitted.intercept, fitted.network, fitted.eep) == pytest.approx((0, share, 0), abs=0.03)
    probabilities, truth = drawn(9, share)
    unseen = evidence_of(probabilities, np.zeros(truth.shape, np.float32), {"a": (1,)}, truth)
    assert expected_dice(unseen, RiskCalibration(fitted.intercept, fitted.network))["a"] == pytest.approx(
        dice_of(probabilities, truth), abs=0.01
    )
    if share < 1:  # taken at its word, the network is too sure
        assert log_loss(unseen, fitted) < log_loss(unseen, RiskCalibration()) - 0.005


def test_an_entropy_that_knows_is_used():
    rng = np.random.default_rng(0)
    network, eep = rng.uniform(0.01, np.log(2), (2, 50, 40, 30)).astype(np.float32)
    risk = RiskCalibration(-0.5, 0.4, 0.8)(error_logit(network, 2), error_logit(eep, 2))
    error = expit(error_logit(network, 2))
    wrong = rng.uniform(size=error.shape) < risk
    found = fit_risk(
        [evidence_of(np.stack([1 - error, error]).astype(np.float32), eep, {"a": (1,)}, wrong.astype(np.uint8))]
    )
    assert (found.intercept, found.network, found.eep) == pytest.approx((-0.5, 0.4, 0.8), abs=0.08)


def test_the_offset_gives_as_many_errors_as_there_are():
    probabilities, truth = drawn(0, 0.5)
    case = evidence_of(probabilities, None, {"a": (1,)}, truth)
    found = fit_offset([case])
    assert (found.network, found.eep) == (1, 0)
    assert found.intercept > 0.5  # the network is too sure
    assert (case.voxels * found(*case.features())).sum() == pytest.approx(case.wrong.sum(), abs=3)


def test_without_errors_the_coefficients_stay_finite():
    probabilities, _ = drawn(0)
    perfect = evidence_of(probabilities, None, {"a": (1,)}, probabilities.argmax(0).astype(np.uint8))
    found = fit_risk([perfect])
    assert -20 < found.intercept < 0
    assert found.eep == 0
    assert fit_risk([]) == RiskCalibration(0, 1, 0)


def test_expected_dice_by_hand():
    """Ten voxels predicted, P(wrong) 1/2: 5 expected right; outside, 20 voxels of which 1/2 x 0.5 are expected."""
    at = BINS - 1  # an error logit of 0 with two classes
    counts = {name: np.zeros((BINS, 1)) for name in ("predicted", "inside", "outside", "voxels")}
    counts["predicted"][at], counts["outside"][at], counts["voxels"][at] = 10, 10, 30
    voxels = counts.pop("voxels")
    case = CaseEvidence(voxels, 2, {"a": type("One", (), counts)()})
    assert expected_dice(case, RiskCalibration())["a"] == pytest.approx(2 * 5 / (10 + 10))
    counts["predicted"][at] = 0
    assert expected_dice(case, RiskCalibration())["a"] == 0


def test_the_map_by_hand():
    probabilities = volume((0.7, 0.3), (0.5, 0.5), (1, 0))
    np.testing.assert_allclose(risk_map(probabilities, None, RiskCalibration()).ravel(), [0.3, 0.5, 0], atol=1e-3)
    eep = np.array([np.log(2), np.log(2), np.log(2)], dtype=np.float32)[:, None, None]
    shifted = risk_map(probabilities, eep, RiskCalibration(1, 0, 1)).ravel()
    np.testing.assert_allclose(shifted, [expit(1)] * 3, atol=1e-3)
    uncalibrated = risk_map(probabilities, None, None).ravel()
    np.testing.assert_allclose(uncalibrated, [-(0.7 * np.log2(0.7) + 0.3 * np.log2(0.3)), 1, 0], atol=1e-6)
    assert uncalibrated.dtype == np.float32
