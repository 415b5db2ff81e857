"""Calibrated probability that a voxel's predicted class is wrong: logistic in the two entropies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.special import expit

from riskft.estimate.evidence import Array, CaseEvidence, Volume, entropy, error_logit, slabs

PRIOR = np.array([0.0, 1.0, 0.0])  #: Intercept and slopes of a network that is calibrated itself.


@dataclass(frozen=True)
class RiskCalibration:
    """P(wrong) = sigmoid(intercept + network * a + eep * b), with the ``error_logit`` a of the network, b of the EEP.

    The defaults take the network's own probabilities as they are.
    """

    intercept: float = 0.0
    network: float = 1.0
    eep: float = 0.0

    def __call__(self, network: npt.NDArray[Any], eep: npt.NDArray[Any] | float = 0.0) -> Array:
        """Returns P(wrong) for error logits of any shape."""
        risk: Array = expit(self.intercept + self.network * network + self.eep * eep)
        return risk


def fit_risk(cases: Sequence[CaseEvidence]) -> RiskCalibration:
    """Fits the logistic regression to all voxels of labelled cases; without any, returns the default.

    A weak Gaussian prior of unit variance about the default keeps the coefficients finite if no voxel is wrong.
    """
    if not cases:
        return RiskCalibration()
    voxels = np.sum([case.voxels for case in cases], axis=0)
    wrong = np.sum([case.wrong for case in cases if case.wrong is not None], axis=0)
    network, eep = np.broadcast_arrays(*cases[0].features())
    filled = voxels > 0
    design = np.stack([np.ones(filled.sum()), network[filled], eep[filled]], axis=1)
    count, errors = voxels[filled], wrong[filled]

    def loss(at: Array) -> float:
        logits = design @ at
        return float((count * np.logaddexp(0, logits) - errors * logits).sum() + ((at - PRIOR) ** 2).sum() / 2)

    def gradient(at: Array) -> Array:
        found: Array = design.T @ (count * expit(design @ at) - errors) + at - PRIOR
        return found

    def hessian(at: Array) -> Array:
        risk = expit(design @ at)
        found: Array = design.T @ (design * (count * risk * (1 - risk))[:, None]) + np.eye(3)
        return found

    found = minimize(loss, PRIOR, jac=gradient, hess=hessian, method="trust-exact").x
    return RiskCalibration(*(float(value) for value in found))


def fit_offset(cases: Sequence[CaseEvidence]) -> RiskCalibration:
    """Fits the intercept alone: the network's probabilities with as many errors as there are, for the Dice of cases.

    What suits voxels best tells cases apart less well: a smaller slope and the EEP give risk to the many easy voxels
    far from the structure, whose sum varies with the field of view rather than with the errors.
    """
    count = np.sum([case.voxels for case in cases], axis=0)
    errors = sum(float(case.wrong.sum()) for case in cases if case.wrong is not None)
    network = cases[0].features()[0]

    def slope(at: float) -> float:
        return float((count * expit(network + at)).sum()) - errors + at

    return RiskCalibration(float(brentq(slope, -50, 50))) if errors or count.any() else RiskCalibration()


def log_loss(case: CaseEvidence, calibration: RiskCalibration) -> float:
    """Returns the mean of -log P(right or wrong) over a labelled case's voxels, nats; NaN without any."""
    risk = calibration(*case.features())
    wrong = np.zeros_like(risk) if case.wrong is None else case.wrong
    tiny = np.finfo(float).tiny
    total = wrong * np.log(np.maximum(risk, tiny)) + (case.voxels - wrong) * np.log1p(-np.minimum(risk, 1 - 1e-16))
    count = float(case.voxels.sum())
    return -float(total.sum()) / count if count else math.nan


def risk_map(probabilities: Volume, eep_entropy: Volume | None, calibration: RiskCalibration | None) -> Volume:
    """Returns P(wrong) of every voxel, (X, Y, Z) float32; see ``evidence_of`` for the other arguments.

    Without a calibration it is the network's entropy as a fraction of the largest possible one.
    """
    classes = len(probabilities)
    result = np.empty(probabilities.shape[1:], dtype=np.float32)
    for here in slabs(probabilities.shape):
        nats = entropy(probabilities[:, here])
        if calibration is None:
            result[here] = np.clip(nats / np.log(classes), 0, 1)
        else:
            eep = 0.0 if eep_entropy is None else error_logit(eep_entropy[here], classes)
            result[here] = calibration(error_logit(nats, classes), eep)
    return result
