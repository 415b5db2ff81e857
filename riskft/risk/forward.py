"""A case's inputs to phase 1: the source's probabilities, and the classes without ignored voxels."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase

Infer = Callable[[Tensor], Iterable[Tensor]]
"""Runs the source on an image (1, C, X, Y, Z): parts (|Z|, depth, Y, Z), one after another along x."""


def source_parts(case: PreparedCase, infer: Infer, device: torch.device) -> Iterator[Tensor]:
    """Yields the source's probabilities of a case, (depth, |Z|, Y, Z) float32, on the inferer's output device."""
    with files_named(case.subject, case.files):
        image = case.to_subject()["image"].data.to(device)
    for part in infer(image[None].float()):
        yield part.float().movedim(1, 0)


def source_probabilities(case: PreparedCase, infer: Infer, device: torch.device) -> Tensor:
    """Returns the source's probabilities of a whole case, (1, |Z|, X, Y, Z) float32, see ``source_parts``."""
    return torch.cat(list(source_parts(case, infer, device))).movedim(0, 1)[None]


def counted_target(case: PreparedCase, use_mask: bool) -> Tensor:
    """Returns a labelled case's classes (X, Y, Z) uint8; ``use_mask`` sets ``IGNORE_INDEX`` outside the body."""
    target = torch.from_numpy(np.asarray(read_volume(case.folder / "label.nii")[0]))
    if use_mask:
        mask, _ = read_volume(case.folder / "mask.nii")
        target = target.masked_fill(torch.from_numpy(np.asarray(mask) == 0), IGNORE_INDEX)
    return target
