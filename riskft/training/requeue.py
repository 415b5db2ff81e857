"""Puts an unfinished run back in the SLURM queue before the time limit ends it."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.distributed import is_first_rank
from riskft.errors import InputError
from riskft.files import write_json
from riskft.run.folder import RunFolder

log = logging.getLogger(__name__)


class Requeue(Callback):
    """Requeues the job on SIGUSR1 (``sbatch --signal=SIGUSR1@90``), after the current epoch if that ends in time.

    Lightning's own handler, which it does not install if there is one already, writes a checkpoint in mid-epoch. Such
    a run would resume with different patches than an uninterrupted one, and several processes can deadlock, because
    they receive the signal at different steps. Phase 1 keeps its finished maps, so it can be interrupted at any time.
    Only the first process acts; SLURM ends them all.

    A job would be requeued forever if its epochs are longer than the time limit, or if its command starts from the
    beginning each time (``test``). ``requeue.json`` in the run folder therefore counts consecutive starts that finish
    no epoch, or no case of ``predict``. The last start allowed logs that the job needs more time.

    Args:
        folder: The run folder.
        command: The command: ``fit``, ``test``, ...
        patience: How long to wait for the end of the epoch, in s. Must be shorter than sbatch's notice.
        most_starts: Consecutive starts without progress after which the job is not requeued.
    """

    def __init__(self, folder: str | Path, command: str, patience: float = 60.0, most_starts: int = 5) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.command = command
        self.patience = patience
        self.most_starts = most_starts
        self._progress = 0
        # not a daemon: a job step that ends waits for it, so that the next step does not start and get killed
        self._timer: threading.Timer | None = None
        signal.signal(signal.SIGUSR1, self._on_signal)
        # the parent process may have blocked the signal
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the epoch. Its checkpoint is written after this."""
        self._progress += 1

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Counts cases, which the next start of ``predict`` skips."""
        self._progress += 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Requeues now if the signal came during the previous epoch, whose checkpoint has been written."""
        if self._timer is not None:
            self._timer.cancel()
            for logger in trainer.loggers:
                logger.save()
            self._go_back()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._timer is None and is_first_rank():
            log.info("Told to stop: back to the queue at the end of the epoch, or in %.0f s", self.patience)
            self._timer = threading.Timer(self.patience, self._go_back)
            self._timer.start()

    def _go_back(self) -> None:
        job = job_name(os.environ)
        try:
            starts = count_start(self.folder, job, self.command, progress=self._progress > 0)
        except (OSError, InputError) as error:  # without a count it could be requeued forever
            reason = f"its starts cannot be counted in {RunFolder(self.folder).requeue} ({error})"
            log.error("The job %s is not queued again: %s.", job, reason)  # noqa: TRY400 - a traceback would not help
            return
        if starts >= self.most_starts:
            missed = {"fit": "one epoch", "predict": "one case"}.get(
                self.command, "and begin from the beginning each time"
            )
            log.error(
                "The job %s is not queued again: %d starts of `%s` did not end %s. Give the job more time "
                "(--slurm.time in a sweep), and submit it again.",
                job,
                starts,
                self.command,
                missed,
            )
            return
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        if done.returncode:
            log.error("The job %s could not be put back in the queue: %s", job, done.stderr.strip())
        else:
            log.info("The job %s is back in the queue", job)


def count_start(folder: Path, job: str, command: str, progress: bool) -> int:
    """Counts a start that the time limit ends, and returns how many consecutive starts made no progress.

    The run folder keeps the count, which starts at 0 for another job or command. Raises OSError or NoSpaceError if it
    cannot be written.
    """
    path = RunFolder(folder).requeue
    before: dict[str, object] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        before = json.loads(path.read_text(encoding="utf-8"))
    earlier = before.get("starts") if isinstance(before, dict) and before.get("of") == [job, command] else 0
    starts = 0 if progress else 1 + (earlier if isinstance(earlier, int) else 0)
    write_json(path, {"of": [job, command], "starts": starts})
    return starts


def in_slurm_task(environment: Mapping[str, str]) -> bool:
    """Whether ``srun`` started this process in a batch job. Only batch jobs can be requeued."""
    return "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment and "SLURM_JOB_ID" in environment


def job_name(environment: Mapping[str, str]) -> str:
    """Returns the job's name for ``scontrol``: the task of an array, not the whole array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]
