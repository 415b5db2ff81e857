"""Gathers Python objects from all processes, and says in which phase a process was lost."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from riskft.compat import group_timeout
from riskft.errors import InputError, ProcessLost

ADVICE = (
    "The message of the process that failed first says why. If none failed and this one only waited too long, raise "
    "the timeout: trainer.strategy.class_path: lightning.pytorch.strategies.DDPStrategy, init_args.timeout: "
    "'2:00:00'. `--ckpt_path last` continues the run."
)
#: Where launchers say a process's rank, in the order in which Lightning looks for it.
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first_rank() -> bool:
    """Whether this process is the first; works before process groups exist, from the launcher's environment."""
    rank = getattr(rank_zero_only, "rank", None)
    if rank is None:  # Lightning, which would have read it from there, is not imported yet
        rank = int(next((os.environ[name] for name in RANKS if os.environ.get(name)), 0))
    # if Lightning starts the processes of each node itself, the first process of a later node has no rank yet
    later_node = "RANK" not in os.environ and int(os.environ.get("NODE_RANK") or 0) > 0
    return rank == 0 and not later_node


def gather_objects(item: Any, what: str) -> list[Any]:
    """Returns the objects of all processes in rank order, or a list of one object without process groups.

    ``what`` names the phase in messages. Raises InputError if another process found bad input (see ``together``), and
    ProcessLost if one died, does not arrive within the process group's timeout, or is in another phase.
    """
    return [part for _, _, part in _exchange((what, None, item))]


@contextmanager
def together(what: str) -> Iterator[None]:
    """Raises the InputError of one process in all of them, so that no process waits for it; ``what`` names the phase.

    All processes must enter it. The others raise it at their next ``gather_objects`` or at the end of the block.
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
    """Turns the backend's errors about lost connections and timeouts into ``ProcessLost``; ``where`` is the phase."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, ProcessLost) or not _is_of_a_collective(error):
            raise
        raise _lost(where(), error) from error


Letter = tuple[str, str | None, Any]  #: The phase, the bad input found in it if any, and the object.


def _exchange(letter: Letter) -> list[Letter]:
    if not _is_distributed():
        return [letter]
    import torch.distributed as dist

    what = letter[0]
    letters: list[Any] = [None] * dist.get_world_size()
    with losses_named(lambda: what), _host_group() as group:
        # waits no longer than the strategy's timeout (the barrier's default differs) and names the missing ranks
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
    """Yields a gloo group of all processes: it needs no GPU, and its barrier can be monitored."""
    import torch.distributed as dist

    if dist.get_backend() == "gloo":
        yield dist.group.WORLD
        return
    group = dist.new_group(backend="gloo", timeout=_timeout())
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def _timeout() -> timedelta:
    import torch
    import torch.distributed as dist

    device = torch.device("cpu") if dist.get_backend() == "gloo" else torch.device("cuda", torch.cuda.current_device())
    return group_timeout(device)


def _is_distributed() -> bool:
    if "torch" not in sys.modules:  # commands without torch start without it
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def _is_of_a_collective(error: RuntimeError) -> bool:
    import torch.distributed as dist

    text = str(error)
    return isinstance(error, dist.DistError) or any(
        word in text for word in ("gloo", "monitoredBarrier", "NCCL", "closed by peer", "reset by peer")
    )


def _lost(what: str, error: Exception) -> ProcessLost:
    import torch.distributed as dist

    rank, size = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
    reason = re.sub(r"^\[[^]]*\] ", "", " ".join(str(error).split())).split(". ")[0][:300]
    return ProcessLost(f"{what}: process {rank} of {size} lost another process ({reason}). {ADVICE}")
