"""Batches of patches in an order that depends only on the seed, the epoch and the rank."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from riskft.compat import set_workers, workers_of
from riskft.data.patches.batch import Patch, PatchBatch, joined
from riskft.errors import InputError

#: The most volumes whose memory workers share with this process, which opens a file for each of their tensors.
SHARED = 64


class Visit(NamedTuple):
    """What a process needs to make the patches of a training volume.

    Attributes:
        volume: Index of the volume.
        numbers: State of torch's generator from which the patches' positions are drawn.
        seed: Seed of the augmentation.
    """

    volume: int
    numbers: Tensor
    seed: int


class Patches(ABC, Dataset[PatchBatch | InputError]):
    """Makes the patches of a training volume, in this process or in workers.

    Attributes:
        per_volume: Patches per volume.
        numbers: How many random numbers a patch's position takes from torch's generator.
        augmented: Whether there is augmentation.
    """

    per_volume: int
    numbers: int
    augmented: bool

    @abstractmethod
    def __len__(self) -> int:
        """The number of volumes."""

    @abstractmethod
    def patches(self, visit: Visit) -> PatchBatch:
        """Returns a volume's patches."""

    def __getitem__(self, visit: Visit) -> PatchBatch | InputError:
        """Returns a volume's patches, or an error in its files, whose message a raise in a worker would spoil."""
        try:
            return self.patches(visit)
        except InputError as error:
            return error

    def numbers_before(self, index: int) -> int:
        """Returns how many random numbers TorchIO's transforms take before those of a volume's patches."""
        return 0


class PatchLoader:
    """Loads ``PatchBatch``. Each rank draws its own share of the volumes; all ranks take the same number of steps.

    If the number of volumes is not a multiple of the ranks, PyTorch's sampler repeats a few. The last incomplete batch
    is dropped.

    Args:
        source: Makes the patches of a volume.
        batch_size: Patches per batch.
        queue_length: Patches that are shuffled together, rounded down to whole volumes, at least one. Workers load as
            many again while these are used.
        num_workers: Processes that load and augment volumes and persist across epochs. 0 loads in this process.
        rank: This process of ``world_size``.
        world_size: Number of processes.
        seed: Seed of everything random in an epoch.
        pin_memory: Whether a thread collates the next batches, in memory from which a GPU copies faster.

    Raises:
        InputError: If an epoch has fewer patches than a batch.
    """

    def __init__(
        self,
        source: Patches,
        batch_size: int,
        queue_length: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.batch_size, self.pin_memory = source, batch_size, pin_memory
        self.sampler = self  # whose ``set_epoch`` Lightning calls
        self._seed, self._rank = seed, rank
        self._order: DistributedSampler[Any] = DistributedSampler(
            source, num_replicas=world_size, rank=rank, shuffle=True, seed=seed
        )
        self._fill = max(1, queue_length // source.per_volume)
        self._shuffles: deque[list[int]] = deque()
        self._volumes: DataLoader[PatchBatch | InputError] = DataLoader(
            source,
            batch_size=None,
            sampler=_Visits(self),
            num_workers=num_workers,
            collate_fn=_as_it_is,
            persistent_workers=num_workers > 0,
            prefetch_factor=max(2, -(-min(self._fill, SHARED) // num_workers)) if num_workers else None,
            generator=torch.Generator(),  # its own, because it must not take the epoch's random numbers
        )
        if len(self) < 1:
            raise InputError(
                f"An epoch has {self._count} patches per rank, fewer than data.batch_size ({batch_size}): raise "
                "data.patches_per_volume or lower the batch size."
            )

    @property
    def _count(self) -> int:
        return len(self._order) * self.source.per_volume

    def __len__(self) -> int:
        return self._count // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Starts an epoch: new order, and random numbers that depend only on the seed, the epoch and the rank.

        So a resumed run sees the same patches as an uninterrupted one. Lightning makes the first iterator before this
        call, so nothing is drawn before the first batch is asked for.
        """
        self._order.set_epoch(epoch)
        torch.manual_seed((self._seed + 1_000_003 * epoch + 7919 * self._rank) % 2**63)

    def __iter__(self) -> Iterator[PatchBatch]:
        patches = self._patches()
        batches = (list(islice(patches, self.batch_size)) for _ in range(len(self)))
        yield from _pinned_ahead(batches) if self.pin_memory else map(joined, batches)

    @property
    def _iterator(self) -> Any:
        """The workers, which Lightning ends after training as it ends those of a ``DataLoader``."""
        return workers_of(self._volumes)

    @_iterator.setter
    def _iterator(self, value: Any) -> None:
        set_workers(self._volumes, value)

    def _patches(self) -> Iterator[Patch]:
        """Yields the patches of an epoch, shuffled among those of ``_fill`` volumes."""
        volumes = map(_whole, self._volumes)
        if self._volumes.num_workers and self._fill > SHARED:
            volumes = map(_own, volumes)
        for start in range(0, len(self._order), self._fill):
            made = list(islice(volumes, min(self._fill, len(self._order) - start)))
            patches = [Patch(volume, number) for volume in made for number in range(self.source.per_volume)]
            yield from (patches[number] for number in self._shuffles.popleft())

    def visits(self) -> Iterator[Visit]:
        """Draws the order and the random numbers of an epoch, one fill of the queue at a time.

        They are taken from torch's generator in the order of a ``torchio.Queue``, with which studies were measured; the
        volumes' transforms take theirs in the process that loads them.
        """
        self._shuffles.clear()
        torch.empty((), dtype=torch.int64).random_()  # the seed of the queue's loader
        order, per_volume = list(self._order), self.source.per_volume
        for start in range(0, len(order), self._fill):
            fill = []
            for index in order[start : start + self._fill]:
                if not self._volumes.num_workers:
                    _skip(self.source.numbers_before(index))
                seed = int(torch.empty((), dtype=torch.int64).random_()) if self.source.augmented else 0
                fill.append(Visit(index, torch.get_rng_state(), seed))
                _skip(per_volume * self.source.numbers)
            self._shuffles.append(torch.randperm(per_volume * len(fill)).tolist())
            yield from fill


class _Visits:
    """The order of an epoch as a sampler, which a ``DataLoader`` starts again in each epoch."""

    def __init__(self, loader: PatchLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Visit]:
        return self._loader.visits()


def _skip(count: int) -> None:
    for _ in range(count):
        torch.rand(1)


def _whole(volume: PatchBatch | InputError) -> PatchBatch:
    if isinstance(volume, InputError):
        raise volume
    return volume


def _as_it_is(patches: Any) -> Any:
    return patches


def _own(patches: PatchBatch) -> PatchBatch:
    """Returns a copy in memory that no worker shares."""
    tensors: Any = [None if part is None else part.clone() for part in patches[1:]]
    return PatchBatch(patches.subjects, *tensors)


def _pinned_ahead(batches: Iterable[list[Patch]]) -> Iterator[PatchBatch]:
    """Collates the next two batches in a thread, in pinned memory."""
    waiting: deque[Future[PatchBatch]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for patches in batches:
            waiting.append(pool.submit(partial(joined, pin_memory=True), patches))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
