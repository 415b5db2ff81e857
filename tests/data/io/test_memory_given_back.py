"""Freed memory is given back to the system where that is wanted."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from riskft.data.io import memory

# 64 blocks of 2 MB, with small ones between them that stay, so that glibc cannot shrink its heap. Prints the resident
# memory in MB that freeing them leaves behind, and how much of that give_back() returns. The module is run by its path,
# for the package would leave room in the heap. Each time in a new process, for the heap that is there is used again.
PROGRAM = """
import runpy, sys
import numpy as np
from pathlib import Path

memory = runpy.run_path(sys.argv[1])

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

np.ones(2**24, np.uint8)  # freed: from now on glibc keeps blocks of less than 16 MB
start, small, large = resident(), [], []
for _ in range(64):
    large.append(np.ones(2**21, np.uint8))
    small.append(np.ones(50_000, np.uint8))
del large
left = resident()
memory["give_back"]()
print(left - start, left - resident())
"""

glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version") or not os.path.exists("/proc/self/statm"),
    reason="needs glibc on Linux",
)


def left_behind(**environment):
    own = {name: value for name, value in os.environ.items() if not memory.chosen_by_user({name: value})}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, memory.__file__],
        env={**own, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(number) for number in done.stdout.split()]


@glibc
def test_freed_memory_is_kept_until_give_back():
    left, given_back = left_behind()
    assert left > 120  # of 128
    assert given_back > 120


@glibc
def test_settings_in_the_environment_take_precedence():
    left, given_back = left_behind(MALLOC_MMAP_THRESHOLD_=str(2**25))
    assert left > 120
    assert given_back < 1


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, False),
        ({"MALLOC_ARENA_MAX": "2", "PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": ""}, False),
        ({"MALLOC_MMAP_THRESHOLD_": "1048576"}, True),
        ({"MALLOC_MMAP_MAX_": "0"}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "1"}, True),
        ({"MALLOC_TOP_PAD_": "1"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=4096"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, False),
    ],
)
def test_environment_variables_that_count_as_settings(environment, chosen):
    assert memory.chosen_by_user(environment) is chosen


class OtherLibrary:
    """Has glibc's function but is not glibc: a call fails the test."""

    def malloc_trim(self, *arguments):
        raise AssertionError(arguments)


@pytest.mark.parametrize("error", [None, OSError, TypeError])
def test_nothing_happens_without_glibc(monkeypatch, error):
    def load(name):
        if error is not None:
            raise error
        return OtherLibrary()

    monkeypatch.setattr(ctypes, "CDLL", load)
    memory._glibc.cache_clear()
    try:
        assert memory._glibc() is None
        memory.give_back()
    finally:
        memory._glibc.cache_clear()


def test_memory_is_given_back_once_it_has_grown(monkeypatch):
    held = iter([100, 40, 60, 139, 141, 90, 190, 191, 50])
    calls = []
    monkeypatch.setattr(memory, "_resident", lambda: next(held))
    monkeypatch.setattr(memory, "give_back", lambda: calls.append(1))
    watch = memory.GivesBack(step=100)
    counts = []
    for _ in range(6):
        watch()
        counts.append(len(calls))
    # the first call, then at 141 > 40 + 100 (the next read, 90, is what is left), then at 191 > 90 + 100
    assert counts == [1, 1, 1, 2, 2, 3]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_the_resident_memory_is_that_of_the_process():
    before = memory._resident()
    block = bytearray(64 << 20)
    assert 60 << 20 < memory._resident() - before < 80 << 20
    del block
