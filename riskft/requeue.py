"""Going back to a SLURM queue before the time limit ends a run that is not done."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.distributed import is_first_rank

log = logging.getLogger(__name__)


class Requeue(Callback):
    """On SIGUSR1 (``sbatch --signal=SIGUSR1@90``) puts the job back in the queue, after the epoch if that ends in time.

    A run goes on exactly where an epoch ended: a checkpoint in mid-epoch, which Lightning's own handler writes, would
    resume with other patches than the undisturbed run, and on several processes, which the signal finds at different
    steps, writing it can wait for ever. Lightning leaves the signal alone where there is a handler already. Phase 1
    keeps what it has made so far, so it may be ended at any time.

    Only the first process acts; SLURM ends them all.

    Args:
        patience: How long to wait for the end of the epoch, in s; less than the notice that sbatch gives.
        most_starts: Do not go back if so many starts did not end one epoch: the time limit is too short for it.
    """

    def __init__(self, patience: float = 60.0, most_starts: int = 5) -> None:
        super().__init__()
        self.patience = patience
        self.most_starts = most_starts
        self._epochs = 0
        self._fitting = False
        # not a daemon: a step that ends meanwhile waits for it, lest the next one starts and is killed half done
        self._timer: threading.Timer | None = None
        signal.signal(signal.SIGUSR1, self._on_signal)
        # whoever starts the run may have held the signal back until now
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes whether epochs are to come."""
        self._fitting = stage == "fit"

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts; the checkpoint is written after this."""
        self._epochs += 1

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
        starts = 1 + int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if self._fitting and not self._epochs and starts > self.most_starts:
            log.error("Start %d ends without one whole epoch: not queued again. Give the job more time.", starts)
            return
        job = job_name(os.environ)
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        if done.returncode:
            log.error("The job %s could not be put back in the queue: %s", job, done.stderr.strip())
        else:
            log.info("The job %s is back in the queue", job)


def in_slurm_task(environment: Mapping[str, str]) -> bool:
    """Whether ``srun`` started this process in a batch job, which alone can be put back in the queue."""
    return "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment and "SLURM_JOB_ID" in environment


def job_name(environment: Mapping[str, str]) -> str:
    """Returns the job as ``scontrol`` takes it: the task of an array, not the whole array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]
