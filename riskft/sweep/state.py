"""What a sweep keeps in a run's folder, and the state of each run, read from its folder alone."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riskft.errors import InputError, first_line, refuse
from riskft.files import earlier, read_mapping, read_rows, write_json
from riskft.run.folder import RunFolder
from riskft.run.lock import is_held
from riskft.sweep.plan import Run


def write_record(run: Run, done: Sequence[str] = ()) -> None:
    """Writes the planned run and its finished commands to the run's folder.

    A job that waits reads this, not the sweep's file, which may change in the meantime.
    """
    write_json(RunFolder(Path(run.folder)).plan, {**asdict(run), "done": list(done)})


def read_run(folder: Path) -> Run:
    """Returns the run planned in a folder; raises InputError if there is none, or its record is broken."""
    if (content := _read(folder)) is None:
        raise InputError(f"There is no {RunFolder(folder).plan}: no sweep has planned a run there.")
    named, arguments = Path(content["folder"]), content["arguments"]
    if os.path.abspath(named) != os.path.abspath(folder):  # moved since
        named, arguments = folder, [*without_root(arguments), f"--run.folder={folder}"]
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
        elif (before := without_root(content["arguments"])) != (planned := without_root(run.arguments)):
            gone, new = ([part for part in a if part not in b] for a, b in ((before, planned), (planned, before)))
            was, now = (" ".join(parts) or "nothing" for parts in (gone, new))
            problems.append(f"{folder} was run with {was} where the sweep has {now}")
    refuse("Set another run.study, or remove these folders:", problems)


def without_root(arguments: Sequence[str]) -> list[str]:
    """Returns a run's options without the folder of all runs, which may have been moved."""
    return [argument for argument in arguments if not argument.startswith(("--run.root=", "--run.folder="))]


def _read(folder: Path) -> dict[str, Any] | None:
    path = RunFolder(folder).plan
    if not path.is_file():
        return None
    content = read_mapping(path)
    kinds = {"folder": str, "arguments": list, "values": dict, "tested": bool, "done": list}
    problems = [
        f"{name} is {content[name]!r}, expected a {kind.__name__}" if name in content else f"{name} is missing"
        for name, kind in kinds.items()
        if not isinstance(content.get(name), kind)
    ] or [
        f"{name} holds {part!r}, expected text"
        for name in ("arguments", "done")
        for part in content[name]
        if not isinstance(part, str)
    ]
    refuse(f"{path}: is not a record that a sweep wrote. Remove the file, and start the sweep again:", problems)
    return content


@dataclass(frozen=True)
class State:
    """How far a run is."""

    name: str  #: ``finished``, ``running``, ``waiting`` (in the queue), ``failed`` or ``missing`` (never started).
    reason: str = ""  #: Why it failed or waits; empty otherwise.
    metric: str = ""  #: Its last score, for example ``val/dice 0.812 (epoch 19)``; empty if there is none yet.


@dataclass(frozen=True)
class Queued:
    """A run's place in the queue of a cluster."""

    job: int  #: The number of its job array.
    running: bool  #: Whether it has started.
    reason: str = ""  #: Why it waits, in the cluster's words.


def state_of(run: Run, queue: Mapping[str, Queued] | None = None) -> State:
    """Returns a run's state; ``queue`` holds the runs in a cluster's queue, by folder."""
    folder = Path(run.folder)
    own = RunFolder(folder)
    metric = last_metric(folder)
    if set(run.steps) <= set(steps_done(folder)):
        return State("finished", metric=metric)
    if queued := (queue or {}).get(run.folder):
        return State("running" if queued.running else "waiting", queued.reason, metric)
    if is_held(own.sweep_lock):
        return State("running", metric=metric)
    if own.failure.is_file():
        return State("failed", own.failure.read_text(encoding="utf-8", errors="replace").strip(), metric)
    if own.log.is_file():
        reason = f"it exited without an error message; the log's last line: {last_line(own.log)}"
        return State("failed", reason, metric)
    return State("missing", metric=metric)


def last_line(path: Path, size: int = 4096) -> str:
    """Returns a log's last line that is not empty."""
    if not path.is_file():
        return "(no log)"
    with path.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - size))
        lines = stream.read().decode("utf-8", errors="replace").split("\n")
    return next((line.rpartition("\r")[2].strip() for line in reversed(lines) if line.strip()), "(empty log)")


def last_metric(folder: Path, column: str = "val/dice") -> str:
    """Returns the last value of a column in the run's curves, with its epoch; empty if there is none."""
    metrics = RunFolder(folder).metrics
    for path in [*([metrics] if metrics.is_file() else []), *reversed(earlier(metrics))]:
        try:
            rows = [row for row in read_rows(path) if row.get(column)]
            if rows:
                return f"{column} {float(rows[-1][column]):.3f} (epoch {rows[-1].get('epoch', '?')})"
        except ValueError as error:
            return f"{path.name} cannot be read ({first_line(error)})"
    return ""
