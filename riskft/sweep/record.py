"""What a sweep keeps in a run's folder: the planned run, its finished commands, and a lock."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riskft.errors import InputError
from riskft.files import read_json, write_json
from riskft.run.folder import RunFolder
from riskft.run.lock import take_lock
from riskft.sweep.plan import Run


def write_record(run: Run, done: Sequence[str] = ()) -> None:
    """Writes the planned run and its finished commands to the run's folder.

    A job that waits reads this, not the sweep's file, which may change in the meantime.
    """
    write_json(RunFolder(Path(run.folder)).plan, {**asdict(run), "done": list(done)})


def read_run(folder: Path) -> Run:
    """Returns the run planned in a folder.

    Raises:
        InputError: If no sweep planned a run there, or its record is broken.
    """
    if (content := _read(folder)) is None:
        raise InputError(f"There is no {RunFolder(folder).plan}: no sweep has planned a run there.")
    named, arguments = Path(content["folder"]), content["arguments"]
    if os.path.abspath(named) != os.path.abspath(folder):  # moved since
        named, arguments = folder, [*_without_root(arguments), f"--run.folder={folder}"]
    return Run(str(named), arguments, content["values"], content["tested"])


def steps_done(folder: Path) -> list[str]:
    """Returns the commands that a run has finished."""
    return list((_read(folder) or {"done": []})["done"])


def refuse_others(runs: Sequence[Run]) -> None:
    """Raises InputError, naming all, if folders hold runs with other options: nothing is overwritten."""
    problems = []
    for run in runs:
        folder = Path(run.folder)
        if not (RunFolder(folder).config.is_file() or RunFolder(folder).log.is_file()):
            continue  # planned at most, never started
        if (content := _read(folder)) is None:
            problems.append(f"{folder} holds a run that no sweep started")
        elif (before := _without_root(content["arguments"])) != (planned := _without_root(run.arguments)):
            gone, new = ([part for part in a if part not in b] for a, b in ((before, planned), (planned, before)))
            was, now = (" ".join(parts) or "nothing" for parts in (gone, new))
            problems.append(f"{folder} was run with {was} where the sweep has {now}")
    if problems:
        raise InputError("Set another run.study, or remove these folders:", problems)


def _without_root(arguments: Sequence[str]) -> list[str]:
    """Returns a run's options without the folder of all runs, which may have been moved."""
    return [argument for argument in arguments if not argument.startswith(("--run.root=", "--run.folder="))]


def _read(folder: Path) -> dict[str, Any] | None:
    path = RunFolder(folder).plan
    if not path.is_file():
        return None
    content = read_json(path)
    kinds = {"folder": str, "arguments": list, "values": dict, "tested": bool, "done": list}
    problems = (
        [
            f"{name} is {content[name]!r}, expected a {kind.__name__}" if name in content else f"{name} is missing"
            for name, kind in kinds.items()
            if not isinstance(content.get(name), kind)
        ]
        if isinstance(content, dict)
        else [f"the file holds {content!r}, expected a mapping"]
    )
    problems = problems or [
        f"{name} holds {part!r}, expected text"
        for name in ("arguments", "done")
        for part in content[name]
        if not isinstance(part, str)
    ]
    if problems:
        raise InputError(
            f"{path}: is not a record that a sweep has written. Remove the file, and start the sweep again:", problems
        )
    return dict(content)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process; the lock goes with the process, however it ends.

    Forked processes, such as loaders of the data that outlive a killed run for a while, do not hold it.

    Raises:
        InputError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder).sweep_lock.open("a") as stream:
        for attempt in range(10):
            if take_lock(stream.fileno(), folder):
                break
            if attempt == 9:
                raise InputError(f"Another process is at work in {folder}. Wait for it, or stop it.")
            time.sleep(0.2)  # `status` holds it for an instant, and a process that was just killed a little longer
        yield


def is_locked(folder: Path) -> bool:
    """Whether another process holds the run folder. Not for the process that holds it, which would let go."""
    path = RunFolder(folder).sweep_lock
    if not path.is_file():
        return False
    # shared and for an instant, so that two that ask do not take each other for the run
    with path.open() as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EACCES, errno.EAGAIN)
    return False
