"""Scores of the source's predictions: LEEP, LEEP by class, and NCE. Higher is better; all are at most 0 nats.

They count voxels, as their papers count images. The voxels of a sample count by the number of voxels that they stand
for, so that the scores estimate those of all voxels of the cases.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from riskft.risk.leep import MIN_PROBABILITY, conditional_from_joint
from riskft.transferability.samples import CannotScoreError


def leep(probabilities: Tensor, classes: Tensor, weights: Tensor) -> float:
    """Returns LEEP, the mean of log EEP(y), weighted (Nguyen et al., ICML 2020, arXiv 2002.12462; ``risk.leep``).

    Args:
        probabilities: (N, Z) floating, the source's, which sum to 1 over Z.
        classes: (N,) int64, target classes.
        weights: (N,) float64, voxels that each one stands for.

    Returns:
        LEEP in nats, 0 for a source that determines the classes and -H(Y) for one that knows nothing of them.

    Raises:
        CannotScoreError: If the weights are all 0.
    """
    return float((weights * _log_eep(probabilities, classes, weights)).sum() / weights.sum())


def leep_by_class(probabilities: Tensor, classes: Tensor, weights: Tensor) -> float:
    """Returns the mean over classes of the mean log EEP(y) in each, in nats; see ``leep`` for the arguments.

    The EEP is LEEP's. A rare class counts as much as background, which makes up almost all of LEEP.
    """
    log_eep = _log_eep(probabilities, classes, weights)
    mass, total = (torch.zeros(int(classes.max()) + 1, dtype=torch.float64) for _ in range(2))
    mass.index_add_(0, classes, weights)
    total.index_add_(0, classes, weights * log_eep)
    return float((total / mass)[mass > 0].mean())


def nce(probabilities: Tensor, classes: Tensor, weights: Tensor) -> float:
    """Returns -H(Y|Z) in nats, Z the source's most probable class (Tran, Nguyen, Hassner, ICCV 2019, arXiv 1908.08142).

    See ``leep`` for the arguments; the joint of Y and Z is weighted.
    """
    hard = one_hot(probabilities.argmax(1), probabilities.shape[1])
    joint = _joint(hard, classes, weights)
    joint = joint / joint.sum()
    entropies = [-torch.xlogy(part, part).sum() for part in (joint, joint.sum(0))]
    return float(entropies[1] - entropies[0])


def _joint(probabilities: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Returns the weighted joint (Y, Z) float64, unnormalised."""
    if not weights.sum() > 0:
        raise CannotScoreError("no voxel counts")
    joint = torch.zeros(int(classes.max()) + 1, probabilities.shape[1], dtype=torch.float64)
    return joint.index_add_(0, classes, probabilities.double() * weights[:, None])


def _log_eep(probabilities: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    conditional = conditional_from_joint(_joint(probabilities, classes, weights))
    return (conditional[classes] * probabilities.double()).sum(1).clamp(MIN_PROBABILITY, 1).log()
