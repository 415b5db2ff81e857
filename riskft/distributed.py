"""Collecting Python objects over processes, and saying which phase they were in where one is lost."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning_utilities.core.rank_zero import rank_zero_only

from riskft.compat import group_timeout
from riskft.errors import InputError, ProcessLost

ADVICE = (
    "The message of the process that failed first says why. If none failed and this one only waited too long, allow "
    "more: trainer.strategy.class_path: lightning.pytorch.strategies.DDPStrategy, init_args.timeout: '2:00:00'. "
    "`--ckpt_path last` goes on with the run."
)


def is_first_rank() -> bool:
    """Whether this process is the first, before process groups exist too: Lightning asks the launcher's environment."""
    # where Lightning starts the processes of each node itself, the first of a later node has no rank yet
    later_node = "RANK" not in os.environ and int(os.environ.get("NODE_RANK") or 0) > 0
    return getattr(rank_zero_only, "rank", 0) in (None, 0) and not later_node


def gather_objects(item: Any, what: str) -> list[Any]:
    """Returns every process's object, in rank order; a list of the one object where there is one process.

    Args:
        item: This process's object.
        what: The phase, for messages.

    Raises:
        InputError: Where another process has found bad input (see ``together``).
        ProcessLost: Where another process has died, does not come within the process group's timeout, or is in another
            phase.
    """
    return [part for _, _, part in _exchange((what, None, item))]


@contextmanager
def together(what: str) -> Iterator[None]:
    """Lets an InputError of one process end all of them, with its message, so that none waits for it.

    All processes must enter it. Those without a fault see the others' at their next ``gather_objects``, inside or at
    the end.

    Args:
        what: The phase, for messages.
    """
    try:
        yield
    except InputError as error:
        if not _is_distributed() or getattr(error, "shared", False):
            raise
        _exchange((what, str(error), None))
        raise
    if _is_distributed():
        _exchange((what, None, None))


@contextmanager
def losses_named(where: Callable[[], str]) -> Iterator[None]:
    """Turns the backend's errors about lost connections and timeouts into ``ProcessLost``.

    Args:
        where: Says in which phase the process is.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, ProcessLost) or not _is_of_a_collective(error):
            raise
        raise _lost(where(), error) from error


Letter = tuple[str, str | None, Any]
"""The phase, the bad input found in it, and the object."""


def _exchange(letter: Letter) -> list[Letter]:
    if not _is_distributed():
        return [letter]
    what = letter[0]
    letters: list[Any] = [None] * dist.get_world_size()
    with losses_named(lambda: what), _host_group() as group:
        # waits no longer than the strategy's timeout (its own default is another), and names those that are missing
        dist.monitored_barrier(group, _timeout(), wait_all_ranks=True)
        dist.all_gather_object(letters, letter, group=group)
    if problems := list(dict.fromkeys(problem for _, problem, _ in letters if problem is not None)):
        error = InputError("\n".join(problems))
        error.shared = True  # type: ignore[attr-defined]  # all processes know it
        raise error
    if len({phase for phase, _, _ in letters}) > 1:
        where = "; ".join(f"process {rank}: {phase}" for rank, (phase, _, _) in enumerate(letters))
        raise ProcessLost(f"The processes are in different phases ({where}). Start all of them with the same options.")
    return letters


@contextmanager
def _host_group() -> Iterator[Any]:
    """Yields a group of all processes that talks over the network without a GPU, whose barrier can be monitored."""
    if dist.get_backend() == "gloo":
        yield dist.group.WORLD
        return
    group = dist.new_group(backend="gloo", timeout=_timeout())
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def _timeout() -> timedelta:
    device = torch.device("cpu") if dist.get_backend() == "gloo" else torch.device("cuda", torch.cuda.current_device())
    return group_timeout(device)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_of_a_collective(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "monitoredBarrier", "NCCL", "closed by peer", "reset by peer")
    )


def _lost(what: str, error: Exception) -> ProcessLost:
    rank, size = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
    reason = re.sub(r"^\[[^]]*\] ", "", " ".join(str(error).split())).split(". ")[0][:300]
    return ProcessLost(f"{what}: process {rank} of {size} has lost another one ({reason}). {ADVICE}")
