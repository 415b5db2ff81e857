"""The state of each run, read from its folder alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from riskft.errors import first_line
from riskft.files import earlier, read_rows
from riskft.run.folder import RunFolder
from riskft.run.lock import is_held
from riskft.sweep.plan import Run
from riskft.sweep.record import steps_done


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
