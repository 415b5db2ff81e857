"""How the processes of a run share the cases and combine their results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Gather = Callable[[Any, str], list[Any]]
"""Collects an object from every rank, in rank order, and so acts as a barrier; takes the phase for messages."""


@dataclass(frozen=True)
class Ranks:
    """This process and the others of the run; by default the only one."""

    rank: int = 0  #: This process.
    world_size: int = 1  #: Number of processes.
    gather: Gather = lambda item, what: [item]  #: Collects objects over ranks.

    def share(self, items: Sequence[T]) -> list[T]:
        """Returns the items of this process."""
        return list(items[self.rank :: self.world_size])


def ordered_sum(parts: Sequence[dict[str, Tensor]]) -> Tensor:
    """Adds the subjects' contributions from all processes in the order of the subjects' names.

    Floating-point sums depend on the order; this order does not depend on the number of processes.
    """
    found = {subject: value for part in parts for subject, value in part.items()}
    return torch.stack([found[subject] for subject in sorted(found)]).sum(0)
