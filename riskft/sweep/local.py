"""Runs of a sweep on this machine, several at a time."""

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from lightning.pytorch.utilities.exceptions import SIGTERMException

from riskft.sweep.plan import Run
from riskft.sweep.processes import CommandLine, prepared_processes
from riskft.sweep.record import LOG, steps_done
from riskft.sweep.state import State, state_of

log = logging.getLogger(__name__)

SWEEP_AGENT = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")
#: How long runs may take to end after a Ctrl-C, which the terminal sends to them too, until they are told to.
CTRL_C_SECONDS = 10.0


class Commands:
    """Processes that run commands, so that all of them can be ended with this one.

    Args:
        command: Runs a command line; known by name to other processes.
        processes: Where they come from.
    """

    def __init__(self, command: CommandLine, processes: BaseContext | None = None) -> None:
        self._command = command
        self._processes = processes or prepared_processes()
        self._running: list[BaseProcess] = []
        self._lock = threading.Lock()
        self._ending = False

    def run(self, folder: Path, step: str, environment: Mapping[str, str]) -> int | None:
        """Runs a command and returns its exit status; None if it has not started because all are being ended.

        Args:
            folder: The run's folder.
            step: ``fit`` or ``test``.
            environment: That of the process.
        """
        with self._lock:
            if self._ending:
                return None
            process = self._processes.Process(target=_step, args=(self._command, folder, step, environment))  # type: ignore[attr-defined]
            process.start()
            self._running.append(process)
        try:
            process.join()
        except (KeyboardInterrupt, SIGTERMException):  # where this is the main thread
            self.end()
            process.join()
            raise
        finally:
            with self._lock:
                self._running.remove(process)
        return int(process.exitcode)

    def end(self) -> None:
        """Tells the processes to end, which they do at the next batch, and lets no other start."""
        with self._lock:
            self._ending = True
            for process in self._running:
                process.terminate()

    def start_no_more(self) -> None:
        """Lets the processes go on, but no other start."""
        with self._lock:
            self._ending = True


def run_locally(runs: Sequence[Run], jobs: int, command: CommandLine) -> Generator[tuple[Run, State], None, None]:
    """Runs planned runs, each command in a process of its own, and yields each run as it ends.

    After a Ctrl-C or a SIGTERM, or when it is closed, it ends the processes and waits for them.

    Args:
        runs: What to run; each run's folder holds its record.
        jobs: How many at a time; they share the cores unless OMP_NUM_THREADS says otherwise.
        command: Runs a command line.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ} if jobs > 1 else dict(os.environ)
    commands = Commands(command)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run_steps, run, environment, commands): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            commands.start_no_more()
            if isinstance(error, KeyboardInterrupt | SIGTERMException | GeneratorExit):
                log.info("Stopping what is running; wait for it to end.")
                if isinstance(error, KeyboardInterrupt):
                    wait([future for future in futures if not future.cancelled()], CTRL_C_SECONDS)
                commands.end()
            raise


def run_steps(run: Run, environment: Mapping[str, str], commands: Commands) -> State:
    """Runs a run's commands one after the other, up to the first that fails; returns its state."""
    folder = Path(run.folder)
    for step in run.steps:
        # a test is no run of W&B's sweep agent, which would take its scores for the training's
        own = {name: value for name, value in environment.items() if step == "fit" or name not in SWEEP_AGENT}
        if code := commands.run(folder, step, own):
            with (folder / LOG).open("a", encoding="utf-8") as output:
                output.write(f"riskft {step}: {_ended(code)}\n")
        # the record and not the status, which a crash of native code at the very end of a process spoils
        if step not in steps_done(folder):
            break
    return state_of(run)


def _ended(code: int) -> str:
    return f"ended with status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def _step(command: CommandLine, folder: Path, step: str, environment: Mapping[str, str]) -> None:
    """Runs a command in this process, which is there for it alone, and writes what it says to the run's log."""
    os.environ.clear()
    os.environ.update(environment)
    # what Lightning starts the other processes of a DDP run with
    sys.argv[1:] = ["sweep", "run", str(folder), "--step", step]
    with (folder / LOG).open("ab") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    faulthandler.enable(2)  # a crash in native code leaves where it was
    import torch

    if threads := environment.get("OMP_NUM_THREADS", "").partition(",")[0]:
        torch.set_num_threads(int(threads))  # which it has read already, where it is forked
    command(sys.argv[1:])
