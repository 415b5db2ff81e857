"""What the command line tells of an error that is not riskft's own fault."""

import os
import sys
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from riskft.errors import InputError, ProcessLost, first_line
from riskft.files import FULL, no_space_message


def message(error: BaseException) -> str | None:
    """Returns what to tell the user of an error, or None if it is riskft's own and its traceback is needed.

    Args:
        error: What a command raised.
    """
    if isinstance(error, ProcessLost):
        return str(error)
    # jsonargparse wraps the InputError of what it builds for options with choices
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, InputError):
        behind = behind.__cause__ or behind.__context__
    if behind is not None:
        return str(behind)
    if isinstance(error, OSError):  # what a logger writes, for example
        return _of_the_system(error)
    return _of_a_library(error)


def _of_a_library(error: BaseException) -> str | None:
    """Returns what a library says of options that do not go together, or of what the machine lacks."""
    said = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException):
        return said
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in said:
        return (
            f"Out of memory ({first_line(error)}). Use a smaller data.patch_size, data.batch_size, data.queue_length "
            "or window of model.inferer, or a coarser data.preprocessing.spacing."
        )
    if (wandb := sys.modules.get("wandb")) is not None and isinstance(error, wandb.Error):
        return f"W&B: {said.rstrip('.')}. To go without it: --wandb.offline true or --wandb.enabled false."
    return None


def _of_the_system(error: OSError) -> str | None:
    """Returns what the operating system says, with the file where it names one."""
    name = error.filename
    if isinstance(name, str | bytes | os.PathLike):
        path = Path(os.fsdecode(name))
        return no_space_message(path) if error.errno in FULL else f"{path}: {error.strerror}."
    if error.errno in FULL:
        return (
            f"{error.strerror}, for a file that the system does not name: look at the run folder, the cache, the risk "
            "store and the folder of temporary files (TMPDIR), and at quotas. Nothing is left half-written; free some "
            "space and start again (fit: with --ckpt_path last; predict goes on with what is missing)."
        )
    return None
