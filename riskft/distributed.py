"""Collecting Python objects over ranks."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only


def is_first_rank() -> bool:
    """Whether this process is the first, before process groups exist too: Lightning asks the launcher's environment."""
    return getattr(rank_zero_only, "rank", 0) in (None, 0)


def gather_objects(item: Any) -> list[Any]:
    """Returns every rank's object, in rank order; a list of the one object where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [item]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, item)
    return gathered
