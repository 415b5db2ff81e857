"""Runs a sweep on this machine, several runs at a time."""

import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from riskft.errors import Terminated
from riskft.run.folder import RunFolder
from riskft.sweep.plan import Run
from riskft.sweep.state import State, state_of, steps_done

log = logging.getLogger(__name__)

#: ``riskft.cli.main``, passed down because a room must not import the command line.
CommandLine = Callable[[Sequence[str]], None]

SWEEP_AGENT = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")
#: How long runs may take to end by themselves after a Ctrl-C, which the terminal also sends to them.
CTRL_C_SECONDS = 10.0


def prepared_processes() -> BaseContext:
    """Returns the context that starts a process for each command.

    On Linux processes are forked from one that has only imported riskft, which saves 6 s per command, a good part of
    a short run. Elsewhere each process starts afresh.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    # W&B first: see `quick_imports`
    context.set_forkserver_preload(["wandb.sdk.launch.inputs.internal", "riskft.build"])
    return context


class Commands:
    """Processes that run commands and end together with this one; they start as in ``prepared_processes``."""

    def __init__(self, command: CommandLine, processes: BaseContext | None = None) -> None:
        self._command = command
        self._processes = processes or prepared_processes()
        self._running: list[BaseProcess] = []
        self._lock = threading.Lock()
        self._ending = False

    def run(self, folder: Path, step: str, environment: Mapping[str, str]) -> int | None:
        """Runs ``fit`` or ``test`` of a run; returns the exit status, or None if it did not start after ``end``."""
        with self._lock:
            if self._ending:
                return None
            process = self._processes.Process(target=_step, args=(self._command, folder, step, environment))  # type: ignore[attr-defined]
            process.start()
            self._running.append(process)
        try:
            process.join()
        except (KeyboardInterrupt, Terminated):  # in the main thread
            self.end()
            process.join()
            raise
        finally:
            with self._lock:
                self._running.remove(process)
        return int(process.exitcode)

    def end(self, running: bool = True) -> None:
        """Starts no more processes, and tells those that are running to end, which they do at the next batch."""
        with self._lock:
            self._ending = True
            for process in self._running if running else ():
                process.terminate()


def run_locally(runs: Sequence[Run], jobs: int, command: CommandLine) -> Generator[tuple[Run, State], None, None]:
    """Runs planned runs, each command in its own process and ``jobs`` runs at a time, and yields each run as it ends.

    The runs share the cores unless OMP_NUM_THREADS is set. After a Ctrl-C or a SIGTERM, or when it is closed, it ends
    the processes and waits for them.
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
            commands.end(running=False)
            if isinstance(error, KeyboardInterrupt | Terminated | GeneratorExit):
                log.info("Stopping what is running; wait for it to end.")
                if isinstance(error, KeyboardInterrupt):
                    wait([future for future in futures if not future.cancelled()], CTRL_C_SECONDS)
                commands.end()
            raise


def run_steps(run: Run, environment: Mapping[str, str], commands: Commands) -> State:
    """Runs a run's commands one after the other, up to the first that fails; returns its state."""
    folder = Path(run.folder)
    for step in run.steps:
        # W&B's sweep agent would mistake the scores of a test for those of the training
        own = {name: value for name, value in environment.items() if step == "fit" or name not in SWEEP_AGENT}
        if code := commands.run(folder, step, own):
            with RunFolder(folder).log.open("a", encoding="utf-8") as output:
                output.write(f"riskft {step}: {_ended(code)}\n")
        # the record decides, not the status: native code may crash at the very end of a process
        if step not in steps_done(folder):
            break
    return state_of(run)


def _ended(code: int) -> str:
    return f"ended with status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def _step(command: CommandLine, folder: Path, step: str, environment: Mapping[str, str]) -> None:
    """Runs a command in this process, started for it alone, and writes its output to the run's log."""
    os.environ.clear()
    os.environ.update(environment)
    # Lightning starts the other processes of a DDP run with these arguments
    sys.argv[1:] = ["sweep", "run", str(folder), "--step", step]
    with RunFolder(folder).log.open("ab") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    faulthandler.enable(2)  # a crash in native code leaves a traceback
    import torch

    if threads := environment.get("OMP_NUM_THREADS", "").partition(",")[0]:
        torch.set_num_threads(int(threads))  # a forked torch has already read the variable
    command(sys.argv[1:])
