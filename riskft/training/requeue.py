"""Going back to a SLURM queue before the time limit ends a run that is not done."""

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
    """On SIGUSR1 (``sbatch --signal=SIGUSR1@90``) puts the job back in the queue, after the epoch if that ends in time.

    A run goes on exactly where an epoch ended: a checkpoint in mid-epoch, which Lightning's own handler writes, would
    resume with other patches than the undisturbed run, and on several processes, which the signal finds at different
    steps, writing it can wait for ever. Lightning leaves the signal alone where there is a handler already. Phase 1
    keeps what it has made so far, so it may be ended at any time.

    Only the first process acts; SLURM ends them all.

    A command that gets no further would go round for ever: one whose epochs are longer than the time limit, and one
    that has no epochs and starts from the beginning each time (``test``). So the starts in a row that did not end one
    epoch, or one case of ``predict``, are counted in the run folder (``requeue.json``), and the last one allowed says
    that the job needs more time.

    Args:
        folder: The run folder.
        command: What is run: ``fit``, ``test``, ...
        patience: How long to wait for the end of the epoch, in s; less than the notice that sbatch gives.
        most_starts: Starts in a row that got no further, after which the job does not go back.
    """

    def __init__(self, folder: str | Path, command: str, patience: float = 60.0, most_starts: int = 5) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.command = command
        self.patience = patience
        self.most_starts = most_starts
        self._progress = 0
        # not a daemon: a step that ends meanwhile waits for it, lest the next one starts and is killed half done
        self._timer: threading.Timer | None = None
        signal.signal(signal.SIGUSR1, self._on_signal)
        # whoever starts the run may have held the signal back until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts; the checkpoint is written after this."""
        self._progress += 1

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Counts cases, which another start of ``predict`` leaves out."""
        self._progress += 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes back at once if asked to while the epoch before was running; that one's checkpoint is written."""
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
        except (OSError, InputError) as error:  # without a count there is no end
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
    """Counts a start that the time limit ends; returns how many in a row made no progress, this one included.

    Args:
        folder: The run folder, which keeps the count.
        job: The job, whose starts are counted; another one's begin at 0.
        command: What was run.
        progress: Whether this start got further.

    Raises:
        OSError: If the count cannot be kept.
        NoSpaceError: If it cannot be kept because the file system is full.
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
    """Whether ``srun`` started this process in a batch job, which alone can be put back in the queue."""
    return "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment and "SLURM_JOB_ID" in environment


def job_name(environment: Mapping[str, str]) -> str:
    """Returns the job as ``scontrol`` takes it: the task of an array, not the whole array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]
