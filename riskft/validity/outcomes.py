"""The outcome of a voxel: right or wrong in the fine-tuned network and in the network trained from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.labels import IGNORE_INDEX
from riskft.evaluation.metrics import pair_counts

ERROR = "error"
NEGATIVE_TRANSFER = "negative transfer"
FOREGROUND_ERROR = "foreground error"

RIGHT, BOTH_WRONG, NEGATIVE, POSITIVE = range(4)
#: What the map's values mean, for the header of its file (at most 79 characters).
LEGEND = "0 right or outside, 1 both wrong, 2 negative transfer, 3 positive transfer"

NOT_ASKED = -1


def targets(truth: Tensor, finetuned: Tensor, scratch: Tensor) -> dict[str, Tensor]:
    """Returns what the predictors should predict, for some voxels: the classes (N,), none ignored, and two predictions.

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
