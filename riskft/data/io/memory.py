"""Giving the memory of volumes back to the system.

Nothing happens where the C library is not glibc, or where the environment sets when it shall give memory back.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

MB = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
_TUNABLES = ("mmap_threshold", "mmap_max", "trim_threshold", "top_pad")


def give_back() -> None:
    """Returns to the system what glibc keeps of freed blocks (a few milliseconds).

    For work whose blocks shall be used again while it goes on, such as a network's; see ``volumes_given_back``.
    """
    if (library := _adjustable_glibc()) is not None:
        library.malloc_trim(0)


@contextmanager
def volumes_given_back() -> Iterator[None]:
    """Gives each block of 1 MB or more back to the system when it is freed.

    glibc would keep those below 32 MB for later, in a heap with gaps that other volumes do not fit into, and which
    grows with the number of volumes. Each block costs page faults, which slow a network down by half: not for
    training or inference. Concerns all threads. Not to be nested.

    Afterwards the thresholds are the highest that glibc raises them to by itself, which it does no more.
    """
    if (library := _adjustable_glibc()) is None:
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, MB)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, 32 * MB)
        library.mallopt(M_TRIM_THRESHOLD, 64 * MB)


def chosen_by_user(environment: Mapping[str, str]) -> bool:
    """Whether an environment says when glibc shall give memory back."""
    tunables = {setting.partition("=")[0] for setting in environment.get("GLIBC_TUNABLES", "").split(":")}
    return any(name in environment for name in _VARIABLES) or any(
        f"glibc.malloc.{name}" in tunables for name in _TUNABLES
    )


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
