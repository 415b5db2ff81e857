"""Giving memory back to the system between volumes."""

import ctypes
from collections.abc import Callable
from functools import lru_cache


def give_back() -> None:
    """Returns to the system what the C library keeps of freed blocks; does nothing where it is not glibc.

    Volumes of different sizes leave gaps in its heaps, which it would keep: preprocessing 24 volumes of 128 x 144 x 112
    voxels by two threads grew by 250 MB, and by nothing with this call after each (a few milliseconds).
    """
    if (trim := _malloc_trim()) is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return trim
