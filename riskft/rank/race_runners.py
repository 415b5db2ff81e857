"""Trains the runs of a race's rung: here, or as a job array of a SLURM cluster."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from riskft.errors import InputError
from riskft.sweep.local import CommandLine, run_locally
from riskft.sweep.plan import Run
from riskft.sweep.slurm import SlurmOptions, queue, submit
from riskft.sweep.state import State, state_of, write_record

log = logging.getLogger(__name__)

#: Trains planned runs and yields each as it ends.
Runner = Callable[[Sequence[Run]], Iterator[tuple[Run, State]]]
POLL_SECONDS = 10.0


def local_runner(jobs: int, command_line: CommandLine) -> Runner:
    """Returns what trains ``jobs`` runs at a time on this machine."""

    def run(runs: Sequence[Run]) -> Iterator[tuple[Run, State]]:
        for each in runs:
            write_record(each)
        with closing(run_locally(runs, jobs, command_line)) as ended:
            yield from ended

    return run


def cluster_runner(folder: Path, options: SlurmOptions) -> Runner:
    """Returns what submits an array, whose files are in the folder, and waits for its runs.

    If the race is stopped meanwhile, they stay in the queue; a race that goes on waits for them, and submits the rest.
    """

    def run(runs: Sequence[Run]) -> Iterator[tuple[Run, State]]:
        waiting = {each.folder: each for each in runs}
        queued = queue(folder)
        if due := [each for each in runs if each.folder not in queued]:
            for each in due:
                write_record(each)
            submit(folder, "race", due, options)
        gone: set[str] = set()  # a run that has left the queue may still write its last files
        while waiting:
            time.sleep(POLL_SECONDS)
            try:
                queued = queue(folder)
            except InputError as error:  # a busy cluster; the runs go on
                log.warning("%s", error)
                continue
            for name, each in list(waiting.items()):
                if name not in queued and name in gone:
                    yield waiting.pop(name), state_of(each)
            gone = {name for name in waiting if name not in queued}

    return run
