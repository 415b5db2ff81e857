"""A case's inputs to phase 1: the source's probabilities, and the classes without ignored voxels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.memory import give_back
from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase


def source_probabilities(case: PreparedCase, infer: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """Runs the source over a case's image, moved to a device.

    Args:
        case: The case.
        infer: (1, C, X, Y, Z) image -> (1, |Z|, X, Y, Z) source probabilities.
        device: Device of the image.

    Returns:
        (1, |Z|, X, Y, Z) float32, on the inferer's output device.
    """
    give_back()
    with files_named(case.subject, case.files):
        image = case.to_subject()["image"].data.to(device)
    return infer(image[None].float()).float()


def counted_target(case: PreparedCase, use_mask: bool, device: torch.device) -> Tensor:
    """Returns a labelled case's classes (X, Y, Z) int64; ``use_mask`` sets ``IGNORE_INDEX`` outside the body."""
    target: Tensor = case.to_subject()["label"].data[0].to(device).long()
    if use_mask:
        mask, _ = read_volume(case.folder / "mask.nii")
        outside = torch.from_numpy(np.asarray(mask) == 0).to(device)
        target = target.masked_fill(outside, IGNORE_INDEX)
    return target
