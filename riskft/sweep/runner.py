"""Runs one command of a run in this process, for a cluster, a local sweep or W&B's sweep agent."""

import ast
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.distributed import is_first_rank
from riskft.errors import InputError, is_terminated, refuse
from riskft.files import write_text
from riskft.run.folder import RunFolder
from riskft.run.lock import held
from riskft.sweep.local import CommandLine
from riskft.sweep.spec import Sweep, read_sweeps
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


def read_for_wandb(path: Path) -> Sweep:
    """Reads the sweep of a file that W&B's server has read too; refuses what only riskft understands."""
    sweep, *others = read_sweeps(path)
    found = [text for text, is_there in (("rows", sweep.groups), ("several sweeps", others)) if is_there]
    if found:
        raise InputError(
            f"{path}: holds {' and '.join(found)}, which W&B's server does not understand. Run it with "
            f"`riskft sweep {path} --local` or `--submit`."
        )
    return sweep


def given_values(sweep: Sweep, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each parameter, in the order of the sweep file.

    The arguments are ``--name=value`` with the value in Python's notation, as in the agent's ``${args}``. Raises
    InputError if a parameter is missing, or is not one of the sweep's.
    """
    given: dict[str, Any] = {}
    problems = []
    names = [parameter.name for parameter in sweep.parameters]
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            problems.append(f"{argument}: expected --name=value")
        else:
            given.update(_flat(name, _value(text), names))
    problems += [f"{name} is not one of them" for name in given if name not in names]
    problems += [f"{name} is missing" for name in names if name not in given]
    refuse(f"These are not the parameters of the sweep {sweep.name}:", problems)
    return {name: given[name] for name in names}


def take_wandb_id(folder: Path, environment: Mapping[str, str]) -> None:
    """Gives a run the ID that W&B's agent expects, unless it has one."""
    if (agent_id := environment.get("WANDB_RUN_ID")) and not RunFolder(folder).wandb_id.is_file():
        write_text(RunFolder(folder).wandb_id, agent_id)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _flat(name: str, value: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields the parameters inside a nested one, which the agent passes as one dictionary."""
    if isinstance(value, dict) and name not in names:
        for key, below in value.items():
            yield from _flat(f"{name}.{key}", below, names)
    else:
        yield name, value
