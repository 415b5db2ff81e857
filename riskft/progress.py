"""Progress bars on a terminal, one log line elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track as rich_track

from riskft.distributed import is_first_rank

log = logging.getLogger(__name__)
T = TypeVar("T")


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Yields the items and shows the progress under a description; a total of 0 shows nothing."""
    if total == 0:
        yield from items
        return
    start = time.monotonic()
    if sys.stderr.isatty() and is_first_rank():
        from rich.console import Console

        yield from rich_track(items, total=total, description=description, console=Console(stderr=True))
    else:
        yield from items
    log.info("%s: %d in %.1f s", description, total, time.monotonic() - start)
