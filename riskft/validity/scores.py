"""The outcome of a voxel, right or wrong in two networks, and how well a predictor separates the voxels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc

from riskft.data.labels import IGNORE_INDEX
from riskft.evaluation.metrics import pair_counts

ERROR = "error"
NEGATIVE_TRANSFER = "negative transfer"
FOREGROUND_ERROR = "foreground error"

RIGHT, BOTH_WRONG, NEGATIVE, POSITIVE = range(4)
#: What the map's values mean, for the header of its file (at most 79 characters).
LEGEND = "0 right or outside, 1 both wrong, 2 negative transfer, 3 positive transfer"

NOT_ASKED = -1

RATES = np.linspace(0, 1, 401)  #: False positive rates at which ROC curves are sampled.
RocCurve = npt.NDArray[np.float64]


def targets(truth: Tensor, finetuned: Tensor, scratch: Tensor) -> dict[str, Tensor]:
    """Returns what to predict for voxels that are not ignored, from their classes and the networks' predictions, (N,).

    By target (N,) int8: 1 for positive voxels, 0 for negative ones, ``NOT_ASKED`` for voxels that do not count.
    """
    wrong = finetuned != truth
    return {
        ERROR: wrong.to(torch.int8),
        NEGATIVE_TRANSFER: (wrong & (scratch == truth)).to(torch.int8),
        FOREGROUND_ERROR: wrong.to(torch.int8).masked_fill(truth == 0, NOT_ASKED),
    }


def outcome_map(
    truth: npt.NDArray[np.uint8], finetuned: npt.NDArray[np.uint8], scratch: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Returns the outcome of every voxel, coded as in ``LEGEND``; ignored voxels get 0."""
    codes = np.where(finetuned == truth, np.where(scratch == truth, RIGHT, POSITIVE),
                     np.where(scratch == truth, NEGATIVE, BOTH_WRONG))  # fmt: skip
    codes[truth == IGNORE_INDEX] = RIGHT
    return codes.astype(np.uint8)


@dataclass(frozen=True)
class ClassVolumes:
    """The outcomes of the voxels with a class in the label. The last four add up to the class's volume."""

    class_name: str
    label_ml: float  #: Its volume.
    finetuned_wrong_ml: float  #: Where the fine-tuned network is wrong.
    scratch_wrong_ml: float  #: Where the network trained from scratch is wrong.
    both_right_ml: float  #: Where both are right.
    both_wrong_ml: float  #: Where both are wrong.
    negative_transfer_ml: float  #: Where only the network trained from scratch is right.
    positive_transfer_ml: float  #: Where only the fine-tuned network is right.


def class_volumes(
    truth: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8], class_names: Sequence[str], voxel_ml: float
) -> list[ClassVolumes]:
    """Returns each class's volumes, background included, from the label's classes and the codes of ``outcome_map``."""
    result = []
    for name, counts in zip(class_names, pair_counts(truth, codes), strict=False):  # up to the last class
        right, both, negative, positive = (float(count) * voxel_ml for count in counts[:4])
        total = float(counts.sum()) * voxel_ml
        result.append(ClassVolumes(name, total, both + negative, both + positive, right, both, negative, positive))
    return result


@dataclass(frozen=True)
class Voxels:
    """The scored voxels of a case."""

    predictors: Mapping[str, Tensor]  #: (N,) float32 by name.
    targets: Mapping[str, Tensor]  #: (N,) int8 by name: 1, 0, or ``NOT_ASKED``.


@dataclass(frozen=True)
class PredictorScore:
    """A predictor's score on a target."""

    auroc: float  #: Area under the ROC curve, or NaN if all voxels or none are positive.
    ap: float  #: Average precision, or NaN likewise; by chance it equals the prevalence.
    prevalence: float  #: Share of positive voxels, or NaN without voxels.
    voxels: int  #: Number of voxels that count.


def ranks(values: Tensor) -> Tensor:
    """Returns values (N,) as float64 in [0, 1] with the same order and ties.

    torchmetrics applies a sigmoid to values outside [0, 1], which would make all hardnesses above 17 nats equal.
    """
    _, inverse = torch.unique(values, return_inverse=True)
    return inverse.double() / inverse.max().clamp_min(1) if len(values) else values.double()


def score(ranked: Tensor, target: Tensor) -> PredictorScore:
    """Scores a predictor by ``ranks`` (N,), taken over these or more voxels, on a target (N,) int8."""
    asked = target != NOT_ASKED
    ranked, positive = ranked[asked], target[asked].long()
    count, hits = len(positive), int(positive.sum())
    if hits in (0, count):
        return PredictorScore(math.nan, math.nan, hits / count if count else math.nan, count)
    auroc = float(binary_auroc(ranked, positive, thresholds=None, validate_args=False))
    ap = float(binary_average_precision(ranked, positive, thresholds=None, validate_args=False))
    return PredictorScore(auroc, ap, hits / count, count)


def roc_curve(ranked: Tensor, target: Tensor) -> RocCurve:
    """Returns the true positive rates at ``RATES``; NaN if all voxels or none are positive."""
    asked = target != NOT_ASKED
    ranked, positive = ranked[asked], target[asked].long()
    if int(positive.sum()) in (0, len(positive)):
        return np.full(len(RATES), np.nan)
    false_rate, true_rate, _ = binary_roc(ranked, positive, thresholds=None, validate_args=False)
    found: RocCurve = np.interp(RATES, false_rate.double().numpy(), true_rate.double().numpy())
    return found


def score_all(voxels: Voxels) -> dict[tuple[str, str], PredictorScore]:
    """Returns the scores by target and predictor."""
    found: dict[tuple[str, str], PredictorScore] = {}
    for predictor, values in voxels.predictors.items():
        ranked = ranks(values)
        found |= {(name, predictor): score(ranked, target) for name, target in voxels.targets.items()}
    return found


def pooled_scores(
    cases: Sequence[Voxels], curve_of: str
) -> tuple[dict[tuple[str, str], PredictorScore], dict[str, RocCurve]]:
    """Returns scores by target and predictor over the voxels of all cases, and one target's ROC curves by predictor."""
    scores: dict[tuple[str, str], PredictorScore] = {}
    curves: dict[str, RocCurve] = {}
    targets = {name: torch.cat([case.targets[name] for case in cases]) for name in cases[0].targets}
    for predictor in cases[0].predictors:  # one at a time, because copies of all would double the memory
        ranked = ranks(torch.cat([case.predictors[predictor] for case in cases]))
        scores |= {(name, predictor): score(ranked, target) for name, target in targets.items()}
        curves[predictor] = roc_curve(ranked, targets[curve_of])
    return scores, curves
