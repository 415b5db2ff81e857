"""Predictors of the voxels that fine-tuning gets wrong: one value per voxel, larger for more risk."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, maximum_filter
from torch import Tensor

from riskft.data.labels import IGNORE_INDEX
from riskft.risk.distribution import ClassDistribution
from riskft.risk.leep import conditional_from_joint, expected_empirical_prediction, hardness
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import RankNormalise

RANK = "rank in class"


def predictors(
    states: Tensor, classes: Tensor, boundary_mm: Tensor, joint: Tensor, dataset: ClassDistribution | None
) -> dict[str, Tensor]:
    """Computes every predictor for some voxels of a case.

    Args:
        states: (Z, N) source probabilities f(x).
        classes: (N,) int64 target classes, none ignored.
        boundary_mm: (N,) from ``boundary_distance``.
        joint: (Y, Z) float64 of the training cases, of any scale.
        dataset: The training cases' hardness by class, or None if it was not kept.

    Returns:
        (N,) float32 by name: ``hardness`` h; ``relative to prior`` h + log P(y); ``rank in class``, the share of the
        class's training voxels with a smaller h (only with ``dataset``); ``class prior`` -log P(y); ``source
        entropy`` of f(x) and ``EEP entropy``, nats, which need no label; ``boundary``, minus the distance in mm.
    """
    conditional = conditional_from_joint(joint)
    values = hardness(states[None], classes[None], conditional)[0]
    expected = expected_empirical_prediction(states[None], conditional)[0]
    found = {
        "hardness": values,
        "relative to prior": RiskMapping(measure="relative_to_prior").values(values, classes, joint),
        **({} if dataset is None else {RANK: RankNormalise()(values.double(), classes, dataset)}),
        "class prior": RiskMapping(measure="class_prior").values(values, classes, joint),
        "source entropy": entropy(states),
        "EEP entropy": entropy(expected),
        "boundary": -boundary_mm,
    }
    return {name: value.float() for name, value in found.items()}


def entropy(probabilities: Tensor) -> Tensor:
    """Returns the entropy in nats, (N,), of probabilities (K, N)."""
    return -torch.xlogy(probabilities, probabilities).sum(0)


def boundary_distance(target: Tensor, spacing: Sequence[float]) -> Tensor:
    """Returns each voxel's distance in mm to the nearest voxel at a boundary between classes, (X, Y, Z) float32.

    A voxel is at a boundary if one of its six neighbours has another class. Ignored voxels form no boundary. Without a
    boundary, the distance is the volume's diagonal everywhere.
    """
    label = target.cpu().numpy()
    at = np.zeros(label.shape, dtype=bool)
    for axis in range(label.ndim):
        first = tuple(slice(None, -1) if other == axis else slice(None) for other in range(label.ndim))
        second = tuple(slice(1, None) if other == axis else slice(None) for other in range(label.ndim))
        counted = (label[first] != IGNORE_INDEX) & (label[second] != IGNORE_INDEX)
        differ = (label[first] != label[second]) & counted
        at[first] |= differ
        at[second] |= differ
    if not at.any():
        diagonal = float(np.linalg.norm(np.asarray(label.shape) * np.asarray(spacing)))
        return torch.full(label.shape, diagonal)
    return torch.from_numpy(distance_transform_edt(~at, sampling=tuple(spacing)).astype(np.float32))


def region(target: Tensor, margin: int) -> Tensor:
    """Returns which voxels (X, Y, Z) are scored: those up to ``margin`` from the foreground, except ignored ones.

    The margin is in voxels, along each axis and diagonally; 0 scores all voxels.
    """
    label = target.cpu().numpy()
    counted = label != IGNORE_INDEX
    if margin == 0:
        return torch.from_numpy(counted)
    foreground = ((label > 0) & counted).astype(np.uint8)
    reach = min(margin, max(label.shape))  # no farther than the volume
    # dilation by a cube
    near = maximum_filter(foreground, size=2 * reach + 1, mode="constant") > 0
    return torch.from_numpy(near & counted)
