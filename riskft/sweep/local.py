"""Runs of a sweep on this machine, several at a time."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from riskft.sweep.plan import Run
from riskft.sweep.record import LOG
from riskft.sweep.state import State, state_of

SWEEP_AGENT = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")


def run_locally(runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, State]]:
    """Runs planned runs, each command in a process of its own, and yields each run as it ends.

    Args:
        runs: What to run; each run's folder holds its record.
        jobs: How many at a time; they share the cores unless OMP_NUM_THREADS says otherwise.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ} if jobs > 1 else dict(os.environ)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(run_steps, run, environment): run for run in runs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            # the processes that run have had the same Ctrl-C; the others need not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_steps(run: Run, environment: Mapping[str, str]) -> State:
    """Runs a run's commands one after the other, up to the first that fails; returns its state."""
    folder = Path(run.folder)
    for step in run.steps:
        # a test is no run of W&B's sweep agent, which would take its scores for the training's
        own = {name: value for name, value in environment.items() if step == "fit" or name not in SWEEP_AGENT}
        with (folder / LOG).open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "riskft", "sweep", "run", run.folder, "--step", step]
            if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=own, check=False).returncode:
                break
    return state_of(run)
