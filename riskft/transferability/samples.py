"""The voxels of a labelled case that stand for all of them: about as many of each class, with importance weights.

A few hundred voxels of each class describe what a source makes of a case, in a thousandth of the disk space that its
feature volumes would take (Agostinelli et al., ECCV 2022, arXiv 2204.01403, score segmentation with about 1,000
class-balanced pixels of each image).
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError
from riskft.files import atomic_path

_FEATURES = "features."


@dataclass(frozen=True)
class VoxelSample:
    """Class-balanced voxels of one labelled case; raises ValueError if the numbers of voxels disagree."""

    subject: str  #: The case.
    classes: Tensor  #: (N,) int64, target classes.
    weights: Tensor  #: (N,) float64, how many voxels of the case each one stands for.
    probabilities: Tensor | None = None  #: (N, Z) float32, the source's; None for an encoder without a head.
    features: Mapping[str, Tensor] = field(default_factory=dict)  #: (N, F) float32 by depth.

    def __post_init__(self) -> None:
        tables = [] if self.probabilities is None else [self.probabilities]
        if lengths := {len(part) for part in (self.weights, *tables, *self.features.values())} - {len(self.classes)}:
            raise ValueError(f"Expected {len(self.classes)} voxels as in `classes`, but got {sorted(lengths)}")


def chosen_voxels(target: Tensor, per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws voxels of each class that occurs in a case, without replacement.

    Args:
        target: Integer class indices of any shape, in which ``IGNORE_INDEX`` is ignored.
        per_class: Voxels per class; a class with fewer gives all that it has.
        generator: Source of the random numbers, on the CPU.

    Returns:
        Flat indices into ``target``, (N,) int64, by class and ascending in each; and the number of voxels that each one
        stands for, (N,) float64. Both are on the CPU, and empty if all voxels are ignored.
    """
    flat = target.flatten().cpu()
    indices, weights = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.float64)]
    for label in torch.unique(flat).tolist():
        if label == IGNORE_INDEX:
            continue
        members = (flat == label).nonzero().squeeze(1)
        count = min(per_class, len(members))
        chosen = torch.randperm(len(members), generator=generator)[:count].sort().values
        indices.append(members[chosen])
        weights.append(torch.full((count,), len(members) / count, dtype=torch.float64))
    return torch.cat(indices), torch.cat(weights)


def write_sample(path: Path, sample: VoxelSample) -> None:
    """Writes a sample atomically as an ``.npz``."""
    arrays: dict[str, Any] = {"subject": np.array(sample.subject)}
    tensors = {"classes": sample.classes, "weights": sample.weights}
    if sample.probabilities is not None:
        tensors["probabilities"] = sample.probabilities
    tensors |= {_FEATURES + depth: values for depth, values in sample.features.items()}
    arrays |= {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def read_sample(path: Path) -> VoxelSample:
    """Reads what ``write_sample`` wrote; raises InputError if the file is missing, damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as content:
            subject = str(content["subject"])
            tensors = {name: torch.from_numpy(content[name]) for name in content.files if name != "subject"}
        depths = {
            name.removeprefix(_FEATURES): values for name, values in tensors.items() if name.startswith(_FEATURES)
        }
        return VoxelSample(subject, tensors["classes"], tensors["weights"], tensors.get("probabilities"), depths)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} is not a voxel sample that riskft can read ({reason}). Remove it, and it is made again."
        ) from error


class CannotScoreError(ValueError):
    """A score has no finite value for these voxels. The message says why, to stand in a table."""


def case_of_voxel(samples: Sequence[VoxelSample]) -> Tensor:
    """Returns the index of each voxel's case, (N,) int64, in the order in which the samples are concatenated."""
    return torch.repeat_interleave(torch.tensor([len(sample.classes) for sample in samples]))
