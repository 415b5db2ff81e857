"""A linear probe: how well a linear classifier of the features does on a case that it has not seen.

It is multinomial logistic regression on standardised features, fitted on all labelled cases but one and scored on that
one, in turn (with more than 10 cases, in 10 turns). Each class has the same weight in the fit, whatever its size: with
the voxels' weights the few voxels of a rare class would hardly count beside the background's, and the fit would follow
a handful of voxels. Such a fit finds the same slopes, and only its intercepts are off, by the log of how much more
often a class was sampled (Prentice and Pyke, Biometrika 66, 1979), so the log of the training cases' class frequencies
is added before the likelihood is computed. For Dice, half of it is added, because Dice is highest if a rare class is
predicted where it is less likely than not: on five tumours and five hippocampi, simple features whose most probable
class reaches Dice 0.01 to 0.16 reach 0.26 to 0.36 so, and those that reach 0.82 lose 0.02.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from riskft.risk.leep import MIN_PROBABILITY
from riskft.transferability.samples import CannotScoreError, VoxelSample

Array = npt.NDArray[np.float64]

DICE_PRIOR = 0.5  #: The share of the prior's logarithm that decides on the predicted class.
MOST_FITS = 10  #: With more cases than that, several are left out at a time.
PENALTY = 1e-2  #: Of the squared slopes, against the mean loss per voxel. Voxels of a case are not independent.


@dataclass(frozen=True)
class ProbeScores:
    """What the probe reached on each case when that case was left out."""

    nll: Array  #: (K,), mean negative log-likelihood in nats, weighted by what each voxel stands for.
    dice: Array  #: (K, Y - 1), in [0, 1] by foreground class; NaN for a class in neither truth nor prediction.


@dataclass(frozen=True)
class Probe:
    """A fitted probe."""

    mean: Tensor  #: (F,) float64, of the features.
    scale: Tensor  #: (F,) float64, their standard deviation; 1 where they do not vary.
    slopes: Tensor  #: (F, Y) float64.
    offsets: Tensor  #: (Y,) float64, for classes that are equally frequent; minus infinity without training voxels.
    prior: Tensor  #: (Y,) float64, log of the class frequencies in the training cases; 0 without training voxels.

    def log_probabilities(self, features: Tensor, prior: float = 1.0) -> Tensor:
        """Returns the log-probabilities, (N, Y) float64, of features (N, F), given the share of the prior to add."""
        logits = (features.double() - self.mean) / self.scale @ self.slopes + self.offsets + prior * self.prior
        return logits.log_softmax(1)


def fit_probe(features: Tensor, classes: Tensor, weights: Tensor, num_classes: int, penalty: float = PENALTY) -> Probe:
    """Fits the probe by L-BFGS in float64, from 0, which makes it deterministic.

    Args:
        features: (N, F) floating.
        classes: (N,) int64, in [0, Y).
        weights: (N,) float64, voxels that each one stands for, from which the class frequencies follow.
        num_classes: Y.
        penalty: L2, on the slopes alone.

    Raises:
        CannotScoreError: If there are fewer than two classes, or the features do not vary.
    """
    counts = torch.bincount(classes, minlength=num_classes)
    present = counts.nonzero().squeeze(1)
    if len(present) < 2:
        raise CannotScoreError(f"{len(present)} class in the cases to fit the probe on, expected at least 2")
    values = features.double()
    mean, spread = values.mean(0), values.std(0, correction=0)
    constant = spread <= 1e-6 * values.square().mean(0).sqrt()
    if constant.all():
        raise CannotScoreError("the features are the same in all voxels")
    scale = torch.where(constant, 1.0, spread)
    position = torch.zeros(num_classes, dtype=torch.long)
    position[present] = torch.arange(len(present))
    # where it does not vary, a feature must not become what rounding has left of it
    design = torch.where(constant, 0.0, (values - mean) / scale).numpy()
    balanced = 1 / (len(present) * counts[classes].double())
    fitted = _fit(design, position[classes].numpy(), balanced.numpy(), len(present), penalty)
    prior = torch.zeros(num_classes, dtype=torch.float64)
    prior[present] = (torch.bincount(classes, weights, minlength=num_classes)[present] / weights.sum()).log()
    slopes = torch.zeros(values.shape[1], num_classes, dtype=torch.float64)
    slopes[:, present] = torch.from_numpy(fitted[:-1])
    offsets = torch.full_like(prior, -math.inf)
    offsets[present] = torch.from_numpy(fitted[-1])
    return Probe(mean, scale, slopes, offsets, prior)


def _fit(design: Array, classes: npt.NDArray[np.int64], weights: Array, num_classes: int, penalty: float) -> Array:
    """Returns the slopes and, as last row, the intercepts, (F + 1, Y), for weights (N,) that sum to 1."""
    wanted = np.eye(num_classes)[classes]
    size = design.shape[1]

    def loss(flat: Array) -> tuple[float, Array]:
        slopes, intercepts = flat[: size * num_classes].reshape(size, num_classes), flat[size * num_classes :]
        logits = design @ slopes + intercepts
        logits -= logits.max(1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(1, keepdims=True)
        value = weights @ (np.log(sums[:, 0]) - (logits * wanted).sum(1)) + penalty / 2 * (slopes**2).sum()
        residual = weights[:, None] * (exponentials / sums - wanted)
        return float(value), np.concatenate([(design.T @ residual + penalty * slopes).ravel(), residual.sum(0)])

    start = np.zeros((size + 1) * num_classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-6, "ftol": 1e-12})
    return np.asarray(found.x, dtype=np.float64).reshape(size + 1, num_classes)


def score_probe(samples: Sequence[VoxelSample], depth: str, num_classes: int) -> ProbeScores:
    """Fits the probe on the features of a depth in all cases but one, and scores it on that one, in turn.

    Dice is estimated from the sample: true positives, false positives and misses are sums of weights. With 250 voxels
    per class, that was within 0.03 of the Dice of all voxels (see above). Raises CannotScoreError for a single case,
    since two parts of one case are too alike to tell how the probe does on another; and where the other cases of a case
    have one class, or features that do not vary.
    """
    if len(samples) < 2:
        raise CannotScoreError("one labelled case: the probe is scored on a case that it was not fitted on")
    nll, dice = np.empty(len(samples)), np.empty((len(samples), num_classes - 1))
    folds = min(len(samples), MOST_FITS)
    for fold in range(folds):
        others = [sample for index, sample in enumerate(samples) if index % folds != fold]
        probe = fit_probe(
            torch.cat([sample.features[depth] for sample in others]),
            torch.cat([sample.classes for sample in others]),
            torch.cat([sample.weights for sample in others]),
            num_classes,
        )
        for index in range(fold, len(samples), folds):
            nll[index], dice[index] = _score(probe, samples[index], depth)
    return ProbeScores(nll, dice)


def _score(probe: Probe, sample: VoxelSample, depth: str) -> tuple[float, list[float]]:
    predicted = probe.log_probabilities(sample.features[depth])
    likelihoods = predicted.gather(1, sample.classes[:, None]).squeeze(1).clamp_min(math.log(MIN_PROBABILITY))
    nll = -float((sample.weights * likelihoods).sum() / sample.weights.sum())
    decided = probe.log_probabilities(sample.features[depth], DICE_PRIOR).argmax(1)
    return nll, estimated_dice(sample.classes, decided, sample.weights, predicted.shape[1])


def estimated_dice(truth: Tensor, prediction: Tensor, weights: Tensor, num_classes: int) -> list[float]:
    """Returns each foreground class's Dice, (Y - 1), from voxels (N,) that stand for ``weights`` voxels each.

    As in ``evaluation.metrics``: NaN for a class in neither, 0 for a class in one.
    """
    result = []
    for label in range(1, num_classes):
        true, predicted = (weights * (classes == label) for classes in (truth, prediction))
        both = true.sum() + predicted.sum()
        result.append(float(2 * (true * (prediction == label)).sum() / both) if both > 0 else math.nan)
    return result
