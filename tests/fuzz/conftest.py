"""The workplace of the fuzz, and the count of how its draws ended."""

import os
from collections.abc import Iterator
from time import perf_counter

import pytest
from fuzz_run import Tally
from fuzz_world import World, shared_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once for all workers of pytest-xdist, which only copy it."""
    folder = tmp_path_factory.getbasetemp()
    return shared_world((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "fuzz")


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    tally, begun = Tally(), perf_counter()
    yield tally
    print(f"\n{tally}\nin {perf_counter() - begun:.0f} s")  # noqa: T201
