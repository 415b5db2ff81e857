"""The batches of training and evaluation, made from TorchIO's subjects.

Both are named tuples, whose tensors torch can pin and Lightning can move and convert.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torch import Tensor
from torch.utils.data import DataLoader

from riskft.data.io.damage import files_named
from riskft.data.patches.augment import EEP, WEIGHT
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError


class PatchBatch(NamedTuple):
    """Training patches.

    Attributes:
        subjects: The subject of each of the B patches.
        image: (B, C, X, Y, Z) float32.
        label: (B, 1, X, Y, Z) uint8 classes; 255 is ignored.
        foreground_fraction: (B,) float32, fraction of the whole volume's voxels, without ignored ones, in foreground.
        weight: (B, 1, X, Y, Z) float32 from the risk map, or None to train without one.
        eep: (B, Y, X, Y, Z) float32, the EEP, or None where the loss needs none.
    """

    subjects: tuple[str, ...]
    image: Tensor
    label: Tensor
    foreground_fraction: Tensor
    weight: Tensor | None = None
    eep: Tensor | None = None


class VolumeBatch(NamedTuple):
    """One whole volume on the prepared grid.

    Attributes:
        subject: The case.
        image: (1, C, X, Y, Z) float32.
        label: (1, 1, X, Y, Z) uint8 classes, 255 is ignored; None for a case without a label.
        affine: (4, 4) float64, voxel indices to mm; an array, so that it keeps its precision and stays on the CPU.
    """

    subject: str
    image: Tensor
    label: Tensor | None
    affine: npt.NDArray[np.float64]

    def truth(self) -> Tensor:
        """Returns the label's classes, (X, Y, Z) uint8; raises InputError if the case has no label."""
        if self.label is None:
            raise InputError(f"{self.subject}: a case to be scored needs a label.")
        return self.label[0, 0]


def patch_batch(patches: Sequence[tio.Subject]) -> PatchBatch:
    """Collates patches."""

    def stacked(name: str) -> Tensor:
        return torch.stack([patch[name].data for patch in patches])

    return PatchBatch(
        subjects=tuple(patch["name"] for patch in patches),
        image=stacked("image"),
        label=stacked("label"),
        foreground_fraction=torch.stack([patch["foreground_fraction"] for patch in patches]),
        weight=stacked(WEIGHT) if WEIGHT in patches[0] else None,
        eep=stacked(EEP) if EEP in patches[0] else None,
    )


class Patch(NamedTuple):
    """One patch among several, by its index."""

    among: PatchBatch
    number: int


def joined(patches: Sequence[Patch], pin_memory: bool = False) -> PatchBatch:
    """Collates patches of several volumes, on request in pinned memory."""

    def stacked(name: str) -> Any:
        parts = [getattr(patch.among, name) for patch in patches]
        if parts[0] is None:
            return None
        out = torch.empty((len(parts), *parts[0].shape[1:]), dtype=parts[0].dtype, pin_memory=pin_memory)
        return torch.stack([part[patch.number] for part, patch in zip(parts, patches, strict=True)], out=out)

    subjects = tuple(patch.among.subjects[patch.number] for patch in patches)
    return PatchBatch(subjects, *map(stacked, ("image", "label", "foreground_fraction", "weight", "eep")))


def volume_batch(volumes: Sequence[tio.Subject]) -> VolumeBatch:
    """Collates a single whole volume."""
    (volume,) = volumes
    return VolumeBatch(
        subject=volume["name"],
        image=volume["image"].data[None],
        label=volume["label"].data[None] if "label" in volume else None,
        affine=np.asarray(volume["image"].affine, dtype=np.float64),
    )


def read_case(case: PreparedCase) -> VolumeBatch:
    """Reads the image and the label of a prepared case; raises InputError if a file is damaged."""
    with files_named(case.subject, case.files):
        return volume_batch([case.to_subject()])


def share_of(count: int, rank: int, world_size: int) -> list[int]:
    """Returns the indices of the volumes that a rank loads, out of ``count``.

    A rank without a share gets the first volume again, which the module scores once: Lightning would skip the whole
    loop and its collectives on such a rank, and the others would wait forever.
    """
    return list(range(rank, count, world_size)) or ([0] if count else [])


def volume_loader(volumes: Any, order: Sequence[int], workers: int = 0) -> Any:
    """Returns a loader of ``VolumeBatch`` for a data set of TorchIO subjects, of which it loads those in ``order``.

    With ``workers``, one process reads ahead; one is enough, because volumes are evaluated one after another.
    """
    pin = torch.cuda.is_available()
    # keywords only: Lightning builds it again for `predict`, and would pass a positional batch size twice
    return DataLoader(
        volumes, batch_size=1, sampler=order, num_workers=min(1, workers), collate_fn=volume_batch, pin_memory=pin
    )
