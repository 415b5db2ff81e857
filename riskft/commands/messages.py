"""The messages of errors that are not bugs of riskft."""

import os
import sys
from pathlib import Path

from riskft.errors import InputError, ProcessLost, first_line
from riskft.files import FULL, no_space_message


def message(error: BaseException) -> str | None:
    """Returns what to tell the user about an error, or None if it is a bug of riskft and its traceback is needed."""
    if isinstance(error, ProcessLost):
        return str(error)
    # jsonargparse wraps an InputError from what it builds for options that take several types
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, InputError):
        behind = behind.__cause__ or behind.__context__
    if behind is not None:
        return str(behind)
    if isinstance(error, OSError):  # a logger cannot write, for example
        return _of_the_system(error)
    return _of_a_library(error)


def _of_a_library(error: BaseException) -> str | None:
    """Returns a library's message about options that do not fit together or resources that the machine lacks."""
    said = " ".join(str(error).split())
    if _is(error, "lightning.fabric.utilities.exceptions", "MisconfigurationException"):
        return said
    if isinstance(error, MemoryError) or _is(error, "torch", "OutOfMemoryError") or "DefaultCPUAllocator" in said:
        return (
            f"Out of memory ({first_line(error)}). Use a smaller data.patch_size, data.batch_size, data.queue_length "
            "or window of model.inferer, or a coarser data.preprocessing.spacing."
        )
    if _is(error, "wandb", "Error"):
        return f"W&B: {said.rstrip('.')}. To do without it: --wandb.offline true or --wandb.enabled false."
    return None


def _is(error: BaseException, module: str, kind: str) -> bool:
    """Whether an error is of a library's class, without importing a library that is not loaded."""
    return isinstance(error, getattr(sys.modules.get(module), kind, ()))


def _of_the_system(error: OSError) -> str | None:
    """Returns the operating system's message, with the file if it names one."""
    name = error.filename
    if isinstance(name, str | bytes | os.PathLike):
        path = Path(os.fsdecode(name))
        return no_space_message(path) if error.errno in FULL else f"{path}: {error.strerror}."
    if error.errno in FULL:
        return (
            f"{error.strerror}, for a file that the system does not name. Check the run folder, the cache, the risk "
            "store, the temporary folder (TMPDIR) and your quotas. No file is half-written: free some space and start "
            "again (fit with --ckpt_path last; predict adds the missing segmentations)."
        )
    return None
