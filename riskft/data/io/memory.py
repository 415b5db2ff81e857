"""Returns the memory of volumes to the system.

Does nothing if the C library is not glibc, or if the environment configures when glibc returns memory.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

MB = 1 << 20
BLOCK = 1 << 16  # voxels to process at a time, so that their copies stay in the processor's cache
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
_TUNABLES = ("mmap_threshold", "mmap_max", "trim_threshold", "top_pad")


def planes_at_once(shape: Sequence[int]) -> int:
    """Returns how many planes of a volume (..., Y, Z) to process at a time."""
    return max(1, BLOCK // (shape[-2] * shape[-1]))


def give_back() -> None:
    """Returns to the system the freed blocks that glibc keeps, which takes a few milliseconds."""
    if (library := _adjustable_glibc()) is not None:
        library.malloc_trim(0)


class GivesBack:
    """Calls ``give_back`` when the process holds much more memory than after the last time.

    A call after each volume would cost more than it saves: the next volume faults the same pages in again.

    Args:
        step: Growth of the resident memory, in bytes, that is tolerated.
    """

    def __init__(self, step: int = 256 * MB) -> None:
        self._step = step
        self._held: int | None = None

    def __call__(self) -> None:
        """Checks the resident memory (about 10 us), and returns freed blocks if it has grown by more than ``step``."""
        held = _resident()
        if self._held is None or held > self._held + self._step:
            give_back()
            self._held = _resident()


def chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Whether an environment configures when glibc returns memory."""
    tunables = {setting.partition("=")[0] for setting in environment.get("GLIBC_TUNABLES", "").split(":")}
    return any(name in environment for name in _VARIABLES) or any(
        f"glibc.malloc.{name}" in tunables for name in _TUNABLES
    )


def _resident() -> int:
    """Returns the resident memory of this process in bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _adjustable_glibc() -> Any:
    return None if chosen_by_user(os.environ) else _glibc()


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """Returns the C library of this process, or None if it is not glibc."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
