"""Runs one command of a run in this process: a job of a cluster, or a process of a local sweep."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from riskft.distributed import is_first_rank
from riskft.errors import InputError, is_terminated
from riskft.files import write_text
from riskft.run.folder import RunFolder
from riskft.run.lock import held
from riskft.sweep.local import CommandLine
from riskft.sweep.state import read_run, steps_done, write_record

LOCK_SECONDS = 2.0  #: `status` holds the lock for an instant, and a process that was just killed a little longer.


def run_step(folder: Path, step: str, command: CommandLine, more: Sequence[str] = ()) -> None:
    """Runs ``fit`` or ``test`` of a planned run, from where it was interrupted; does nothing if it is already finished.

    The options in ``more`` depend on the machine, such as the number of devices. Raises InputError if no sweep has
    planned a run there, or another process has locked the folder. If the command fails, the reason is in
    ``failed.txt``.
    """
    run, own = read_run(folder), RunFolder(folder)
    done = steps_done(folder)
    if step in done:
        return
    arguments = ["--config", str(own.config)] if step == "test" else [*run.arguments, "--ckpt_path", "last"]
    # one process per run writes the record, because all end together
    first = is_first_rank()
    with held(own.sweep_lock, LOCK_SECONDS) if first else contextlib.nullcontext():
        if first:
            own.failure.unlink(missing_ok=True)
            write_record(run, done)
        try:
            command([step, *arguments, *more])
        except BaseException as error:
            write_text(own.failure, f"{step}: {_reason(error)}\n")
            raise
        if first:
            write_record(run, [*done, step])


def _reason(error: BaseException) -> str:
    """Returns one line; the exit of the command line has the error only as its context."""
    cause = error.__context__ if isinstance(error, SystemExit) and error.__context__ else error
    if isinstance(cause, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if is_terminated(cause):
        return "stopped by SIGTERM"
    if isinstance(cause, SystemExit):
        return f"{type(cause).__name__}: status {cause.code}"
    lines = str(cause).strip().splitlines() or [""]
    if isinstance(cause, InputError):  # whose first line may only introduce the problems
        return " ".join(line.strip().removeprefix("- ") for line in lines[:2])
    return f"{type(cause).__name__}: {lines[0]}"
