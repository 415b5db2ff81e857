"""Exits after Ctrl-C and SIGTERM with the usual status and a line on how to go on."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from riskft.distributed import is_first_rank
from riskft.errors import Terminated, is_terminated
from riskft.run.folder import RunFolder

CTRL_C, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


@contextmanager
def ending_with(advice: Callable[[], str]) -> Iterator[None]:
    """Exits after an interruption with status 130 (Ctrl-C) or 143 (SIGTERM), and prints the advice on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        status = CTRL_C
    except SystemExit as error:
        if is_terminated(error):  # by itself it would exit with status 0, as if the command had finished
            status = TERMINATED
        # Lightning exits with status 1 after a Ctrl-C; exits from an inner block are already reported
        elif isinstance(error.__context__, KeyboardInterrupt) and error.code not in (CTRL_C, TERMINATED):
            status = CTRL_C
        else:
            raise
    else:
        return
    if is_first_rank():
        print(f"riskft: stopped. {advice()}", file=sys.stderr)  # noqa: T201
    raise SystemExit(status)


@contextmanager
def sigterm_raised() -> Iterator[None]:
    """Turns a SIGTERM into an exception, so that temporary files are removed and the user is told how to go on.

    Once training starts, Lightning's own handler stops its loops between batches.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGTERM) is stop:  # otherwise Lightning's handler called this and only takes note
            raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def again(arguments: Sequence[str]) -> str:
    """Says how to run the same command again."""
    command = shlex.join(["riskft", *arguments])
    what = {
        "predict": "Finished segmentations are kept; to add the missing ones",
        "sweep": "Finished runs are kept; to go on with the others",
        "next": "What was found in the scans is kept; to go on",
        "rank": "Finished passes and trainings are kept; to go on",
    }.get(arguments[0] if arguments else "", "To start again")
    return f"{what}: {command}"


def go_on(arguments: Sequence[str], folder: Path) -> str:
    """Says how to go on with a command that has a trainer, by its run folder (for ``riskmap``, its output folder)."""
    if arguments[0] == "riskmap" and any(folder.glob("*_weight.nii.gz")):
        return f"Finished maps are kept; to write them all: {_command(arguments, '--overwrite', 'true')}"
    if arguments[0] != "fit":
        return again(arguments)
    command = _command(_without(arguments, "--run.overwrite"), "--ckpt_path", "last")
    if RunFolder(folder).last.is_file():
        return f"To go on from the last checkpoint: {command}"
    return f"There is no checkpoint yet; preprocessed cases and risk maps are kept. To start again: {command}"


def _command(arguments: Sequence[str], option: str, value: str) -> str:
    return shlex.join(["riskft", *_without(arguments, option), option, value])


def _without(arguments: Sequence[str], option: str) -> list[str]:
    """Returns the arguments without an option, whether written ``--a b`` or ``--a=b``."""
    kept: list[str] = []
    value_follows = False
    for argument in arguments:
        if value_follows and not argument.startswith("--"):
            value_follows = False
            continue
        value_follows = argument == option
        if not value_follows and not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept
