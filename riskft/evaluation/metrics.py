"""Dice and HD95 per case and class, with one policy for empty classes.

Both empty: no value (NaN), excluded from means. One empty: Dice 0, and HD95 is the volume's diagonal in mm, the largest
possible distance. The number of cases behind each mean is always reported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from riskft.data.labels import IGNORE_INDEX
from riskft.evaluation.surface import hd95


@dataclass(frozen=True)
class CaseScore:
    """One class, or region of classes, of one case."""

    subject: str  #: The case.
    class_name: str  #: The class or region.
    dice: float  #: In [0, 1], or NaN.
    hd95_mm: float  #: 95th percentile of the symmetric surface distance in mm, or NaN (also if not requested).
    voxels_true: int  #: Voxels of the class in the label.
    voxels_predicted: int  #: Voxels of the class in the prediction.


def score_case(
    subject: str,
    prediction: Tensor,
    truth: Tensor,
    class_names: Sequence[str],
    spacing: Sequence[float],
    surface: bool = True,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> list[CaseScore]:
    """Scores a prediction, (X, Y, Z) integer classes, against the truth of the same shape, in which 255 is ignored.

    ``class_names`` are by index, background first (it is not scored); ``regions``, unions of class indices by name, are
    scored instead of the classes. ``spacing`` is in mm. ``surface`` computes HD95 as well, which is slower. Raises
    ValueError if shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"Expected `prediction` of shape {tuple(truth.shape)}, but got {tuple(prediction.shape)}")
    true, predicted = (volume.to(torch.uint8).cpu().contiguous().numpy() for volume in (truth, prediction))
    ignored = true == IGNORE_INDEX
    true, predicted = np.where(ignored, 0, true), np.where(ignored, 0, predicted)
    pairs = pair_counts(true, predicted)
    boxes = [ndimage.find_objects(volume) for volume in (true, predicted)] if surface else []
    diagonal = math.sqrt(sum((size * step) ** 2 for size, step in zip(truth.shape, spacing, strict=True)))
    scores = []
    scored = regions or {name: (index,) for index, name in enumerate(class_names[1:], start=1)}
    for name, indices in scored.items():
        members = np.isin(np.arange(256), indices)
        n_true, n_predicted = int(pairs[members].sum()), int(pairs[:, members].sum())
        if n_predicted == 0 and n_true == 0:
            dice = distance = math.nan
        elif n_predicted == 0 or n_true == 0:
            dice, distance = 0.0, diagonal
        else:
            dice = 2 * int(pairs[members][:, members].sum()) / (n_predicted + n_true)
            if surface:
                box = _union([found[index - 1] for found in boxes for index in indices if index <= len(found)])
                distance = hd95(members[predicted[box]], members[true[box]], spacing)
        scores.append(CaseScore(subject, name, dice, distance if surface else math.nan, n_true, n_predicted))
    return scores


def pair_counts(true: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Returns how often each pair of values occurs at the same voxel of two volumes (X, Y, Z), as (256, 256)."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    for slices in zip(true, other, strict=True):  # not at once, because bincount takes 8 bytes for each voxel
        found = np.bincount((slices[0].astype(np.uint16) << 8 | slices[1]).ravel())
        counts[: len(found)] += found
    return counts.reshape(256, 256)


def _union(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """Returns the smallest box that holds all of the boxes; None is an empty box."""
    sides = zip(*(box for box in boxes if box is not None), strict=True)
    return tuple(slice(min(side.start for side in one), max(side.stop for side in one)) for one in sides)


@dataclass(frozen=True)
class ClassMean:
    """Mean of a metric over the cases that have a value."""

    value: float  #: The mean, or NaN if no case has a value.
    count: int  #: Number of cases with a value.


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
