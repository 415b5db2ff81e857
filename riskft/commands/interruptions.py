"""Ending after Ctrl-C and SIGTERM: with the status that shells know, and a line on how to go on."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lightning.pytorch.utilities.exceptions import SIGTERMException

from riskft.distributed import is_first_rank
from riskft.run.folder import RunFolder

CTRL_C, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


@contextmanager
def ending_with(advice: Callable[[], str]) -> Iterator[None]:
    """Ends the process after an interruption, with 130 or 143 and a line on standard error.

    Args:
        advice: Says how to go on.

    Raises:
        SystemExit: After a Ctrl-C or a SIGTERM.
    """
    try:
        yield
    except KeyboardInterrupt:
        status = CTRL_C
    except SIGTERMException:  # has no exit status: what was stopped would look finished
        status = TERMINATED
    except SystemExit as error:
        # Lightning's own, of status 1; those from here have been told already
        if not isinstance(error.__context__, KeyboardInterrupt) or error.code in (CTRL_C, TERMINATED):
            raise
        status = CTRL_C
    else:
        return
    if is_first_rank():
        print(f"riskft: stopped. {advice()}", file=sys.stderr)  # noqa: T201
    raise SystemExit(status)


@contextmanager
def sigterm_raised() -> Iterator[None]:
    """Turns a SIGTERM into an exception, so that temporary files go and the user is told how to go on.

    Lightning has its own handler from the first step on, under which its loops stop between batches.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGTERM) is stop:  # else called by Lightning's, which only takes note
            raise SIGTERMException

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def again(arguments: Sequence[str]) -> str:
    """Says that the same command goes on.

    Args:
        arguments: Those of the command.
    """
    command = shlex.join(["riskft", *arguments])
    what = {
        "predict": "Segmentations that are finished are kept; to add the missing ones",
        "sweep": "Finished runs are left out next time, and the others go on; to do so",
    }.get(arguments[0] if arguments else "", "To start again")
    return f"{what}: {command}"


def go_on(arguments: Sequence[str], folder: Path) -> str:
    """Says how a training, a test, a prediction or an export of maps goes on.

    Args:
        arguments: Those of the command.
        folder: The run folder, or where maps are exported.
    """
    if arguments[0] == "riskmap" and any(folder.glob("*_weight.nii.gz")):
        return f"Finished maps are kept; to write them all: {_command(arguments, '--overwrite', 'true')}"
    if arguments[0] != "fit":
        return again(arguments)
    command = _command(_without(arguments, "--run.overwrite"), "--ckpt_path", "last")
    if RunFolder(folder).last.is_file():
        return f"To go on from the last checkpoint: {command}"
    return f"There is no checkpoint yet; what is preprocessed and mapped is kept. To start again: {command}"


def _command(arguments: Sequence[str], option: str, value: str) -> str:
    return shlex.join(["riskft", *_without(arguments, option), option, value])


def _without(arguments: Sequence[str], option: str) -> list[str]:
    """Returns the arguments without an option and its value, in both ways of writing them."""
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
