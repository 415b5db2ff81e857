"""Dice and HD95 per case and class, with one policy for empty classes.

Both empty: no value (NaN), excluded from means. One empty: Dice 0, and HD95 is the volume's diagonal in mm, the largest
possible distance. The number of cases behind each mean is always reported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from torch import Tensor

from riskft.data.labels import IGNORE_INDEX


@dataclass(frozen=True)
class CaseScore:
    """One class, or region of classes, of one case.

    Attributes:
        subject: The case.
        class_name: The class or region.
        dice: In [0, 1], or NaN.
        hd95_mm: 95th percentile of the symmetric surface distance in mm, or NaN (also if not requested).
        voxels_true: Voxels of the class in the label.
        voxels_predicted: Voxels of the class in the prediction.
    """

    subject: str
    class_name: str
    dice: float
    hd95_mm: float
    voxels_true: int
    voxels_predicted: int


def score_case(
    subject: str,
    prediction: Tensor,
    truth: Tensor,
    class_names: Sequence[str],
    spacing: Sequence[float],
    surface: bool = True,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[CaseScore]:
    """Scores one case.

    Args:
        subject: The case.
        prediction: (X, Y, Z) integer classes.
        truth: (X, Y, Z) integer classes; 255 is ignored.
        class_names: Names by index, background first (it is not scored).
        spacing: Voxel size in mm.
        surface: Compute HD95 as well (slower).
        regions: Unions of class indices by name, scored instead of the classes.

    Raises:
        ValueError: If shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"Expected `prediction` of shape {tuple(truth.shape)}, but got {tuple(prediction.shape)}")
    prediction = prediction.masked_fill(truth == IGNORE_INDEX, 0)
    diagonal = math.sqrt(sum((size * step) ** 2 for size, step in zip(truth.shape, spacing, strict=True)))
    scores = []
    scored = regions or {name: (index,) for index, name in enumerate(class_names[1:], start=1)}
    for name, indices in scored.items():
        members = torch.tensor(indices, device=truth.device)
        predicted, true = torch.isin(prediction, members.to(prediction.device)), torch.isin(truth, members)
        n_predicted, n_true = int(predicted.sum()), int(true.sum())
        if n_predicted == 0 and n_true == 0:
            dice = distance = math.nan
        elif n_predicted == 0 or n_true == 0:
            dice, distance = 0.0, diagonal
        else:
            dice = 2 * int((predicted & true).sum()) / (n_predicted + n_true)
            distance = _hd95(predicted, true, spacing) if surface else math.nan
        scores.append(CaseScore(subject, name, dice, distance if surface else math.nan, n_true, n_predicted))
    return scores


def _hd95(predicted: Tensor, true: Tensor, spacing: Sequence[float]) -> float:
    box = _common_box(predicted | true)
    pair = (volume[box][None, None].float().cpu() for volume in (predicted, true))
    return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing)))


def _common_box(mask: Tensor) -> tuple[slice, ...]:
    """Returns the mask's bounding box with a margin of one voxel, which is enough for distances and much faster."""
    corners = mask.nonzero()
    low = (corners.min(0).values - 1).clamp_min(0).tolist()
    high = (corners.max(0).values + 2).tolist()
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


@dataclass(frozen=True)
class ClassMean:
    """Mean of a metric over the cases that have a value.

    Attributes:
        value: The mean, or NaN if no case has a value.
        count: Number of cases with a value.
    """

    value: float
    count: int


def class_means(scores: Sequence[CaseScore], metric: str) -> dict[str, ClassMean]:
    """Returns each class's mean of ``dice`` or ``hd95_mm`` over cases."""
    result = {}
    for name in dict.fromkeys(score.class_name for score in scores):
        values = np.array([getattr(score, metric) for score in scores if score.class_name == name])
        values = values[~np.isnan(values)]
        result[name] = ClassMean(float(values.mean()) if values.size else math.nan, int(values.size))
    return result


def overall(means: dict[str, ClassMean]) -> float:
    """Returns the mean over classes that have a value, or NaN."""
    values = [mean.value for mean in means.values() if mean.count]
    return float(np.mean(values)) if values else math.nan
