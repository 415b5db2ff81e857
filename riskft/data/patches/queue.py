"""A TorchIO patch queue, sharded over ranks and reshuffled every epoch."""

from collections.abc import Iterator
from typing import Any

import torch
import torchio as tio
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from riskft.compat import empty_queue
from riskft.data.patches.batch import patch_batch
from riskft.errors import InputError


class ShardedQueue(tio.Queue):  # type: ignore[misc]
    """Each rank draws its own share of the subjects; all ranks draw the same number of patches.

    If the number of subjects is not a multiple of the ranks, PyTorch's sampler repeats a few, because ranks must take
    the same number of steps.

    Args:
        subjects: The training subjects with their transform.
        sampler: Patch sampler.
        samples_per_volume: Patches per subject and epoch.
        max_length: Patches held in memory, rounded down to whole subjects, at least one.
        num_workers: Processes that load and augment volumes; 0 loads in the training process.
        rank: This process of ``world_size``.
        world_size: Number of processes.
        seed: Seed of everything random in an epoch.
    """

    def __init__(
        self,
        subjects: tio.SubjectsDataset,
        sampler: tio.data.PatchSampler,
        samples_per_volume: int,
        max_length: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        self._seed, self._rank = seed, rank
        super().__init__(
            subjects,
            # otherwise TorchIO fills the queue with part of a subject's patches, or with those of the next epoch
            max_length=max(1, max_length // samples_per_volume) * samples_per_volume,
            samples_per_volume=samples_per_volume,
            sampler=sampler,
            subject_sampler=DistributedSampler(subjects, num_replicas=world_size, rank=rank, shuffle=True, seed=seed),
            num_workers=num_workers,
            shuffle_subjects=False,  # the sampler shuffles
            start_background=False,
        )

    def set_epoch(self, epoch: int) -> None:
        """Starts an epoch: new order, empty queue, and random numbers that depend only on the epoch.

        So a resumed run sees the same patches as an uninterrupted one.
        """
        self.subject_sampler.set_epoch(epoch)
        torch.manual_seed((self._seed + 1_000_003 * epoch + 7919 * self._rank) % 2**63)
        empty_queue(self)

    @property
    def iterations_per_epoch(self) -> int:
        """Patches per epoch and rank (TorchIO's own property visits all subjects at each call)."""
        return len(self.subject_sampler) * int(self.samples_per_volume)


class EpochSampler(Sampler[int]):
    """Walks the queue in order and forwards Lightning's ``set_epoch`` to it."""

    def __init__(self, queue: ShardedQueue) -> None:
        self.queue = queue

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.queue)))

    def __len__(self) -> int:
        return len(self.queue)

    def set_epoch(self, epoch: int) -> None:
        """Starts an epoch; Lightning calls it with the right number after a resume, too."""
        self.queue.set_epoch(epoch)


def patch_loader(queue: ShardedQueue, batch_size: int, pin_memory: bool = False) -> Any:
    """Returns a loader of ``PatchBatch``; the last incomplete batch is dropped, so that ranks stay in step.

    Raises:
        InputError: If an epoch has fewer patches than a batch.
    """
    if len(queue) < batch_size:
        raise InputError(
            f"An epoch has {len(queue)} patches per rank, fewer than data.batch_size ({batch_size}): raise "
            "data.patches_per_volume or lower the batch size."
        )
    return DataLoader(
        queue,
        batch_size=batch_size,
        sampler=EpochSampler(queue),
        num_workers=0,  # the queue has its own workers
        drop_last=True,
        collate_fn=patch_batch,
        pin_memory=pin_memory,
        # its own, because a new iterator would otherwise use up random numbers of the epoch, and not in every epoch
        generator=torch.Generator(),
    )
