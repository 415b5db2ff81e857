"""Runs of a sweep on this machine, several at a time."""

import faulthandler
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.context import BaseContext
from pathlib import Path

from riskft.processes import prepared_processes
from riskft.sweep.plan import Run
from riskft.sweep.record import LOG, steps_done
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
    processes = prepared_processes()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            futures = {pool.submit(run_steps, run, environment, processes): run for run in runs}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            # the processes that run have had the same Ctrl-C; the others need not start
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_steps(run: Run, environment: Mapping[str, str], processes: BaseContext | None = None) -> State:
    """Runs a run's commands one after the other, up to the first that fails; returns its state."""
    processes = processes or prepared_processes()
    folder = Path(run.folder)
    for step in run.steps:
        # a test is no run of W&B's sweep agent, which would take its scores for the training's
        own = {name: value for name, value in environment.items() if step == "fit" or name not in SWEEP_AGENT}
        process = processes.Process(target=_step, args=(folder, step, own))  # type: ignore[attr-defined]
        process.start()
        process.join()
        if process.exitcode:
            with (folder / LOG).open("a", encoding="utf-8") as log:
                log.write(f"riskft {step}: {_ended(process.exitcode)}\n")
        # the record and not the status, which a crash of native code at the very end of a process spoils
        if step not in steps_done(folder):
            break
    return state_of(run)


def _ended(code: int) -> str:
    return f"ended with status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def _step(folder: Path, step: str, environment: Mapping[str, str]) -> None:
    """Runs a command in this process, which is there for it alone, and writes what it says to the run's log."""
    os.environ.clear()
    os.environ.update(environment)
    # what Lightning starts the other processes of a DDP run with
    sys.argv[1:] = ["sweep", "run", str(folder), "--step", step]
    with (folder / LOG).open("ab") as log:
        for output in (1, 2):
            os.dup2(log.fileno(), output)
    faulthandler.enable(2)  # a crash in native code leaves where it was
    import torch

    from riskft.cli import main

    if threads := environment.get("OMP_NUM_THREADS", "").partition(",")[0]:
        torch.set_num_threads(int(threads))  # which it has read already, where it is forked
    main(sys.argv[1:])
