"""Collecting Python objects over ranks."""

from typing import Any

import torch


def gather_objects(item: Any) -> list[Any]:
    """Returns every rank's object, in rank order; a list of the one object where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [item]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, item)
    return gathered
