"""Processes for whole commands of riskft."""

import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.context import BaseContext

#: ``riskft.cli.main``, which lies above the rooms that are handed it.
CommandLine = Callable[[Sequence[str]], None]


def prepared_processes() -> BaseContext:
    """Returns where processes come from that shall each run a command.

    On Linux they are forked off one that has imported everything and has done nothing with it: on two cores that
    spares each command 11 s, a third of a short run. Elsewhere they start anew.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["riskft.cli"])
    return context
