"""The workplace of the fuzz, and the count of how its draws ended."""

from collections.abc import Iterator
from time import perf_counter

import pytest
from fuzz_run import Tally
from fuzz_world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    tally, begun = Tally(), perf_counter()
    yield tally
    print(f"\n{tally}\nin {perf_counter() - begun:.0f} s")  # noqa: T201
