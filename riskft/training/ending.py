"""How a multi-process run ends if one process fails, is lost or is told to stop."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from riskft.compat import handle_sigterm, launched_processes, note_sigterm
from riskft.distributed import losses_named
from riskft.errors import ProcessLost

GRACE_SECONDS = 10.0


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """Names the stage in which a process was lost, and ends the processes that this one started if the run fails."""

    def where() -> str:
        state = trainer.state
        stage = state.stage.value if state.stage else state.fn.value if state.fn else "start"
        return f"{stage}, epoch {trainer.current_epoch}, step {trainer.global_step}"

    def on_sigterm(signum: int, frame: FrameType | None) -> None:
        """Records the signal, so that Lightning's loops stop at the next batch.

        Lightning's own handler also calls a collective. If the processes are at different points of a step, they hang.
        """
        if not trainer.received_sigterm and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.Signals(signum))
        note_sigterm(trainer)

    handle_sigterm(trainer, on_sigterm)
    try:
        with losses_named(where):
            yield
    except BaseException as error:
        # processes that Lightning launched may wait in a collective that this one will never enter
        end_processes(launched_processes(trainer), GRACE_SECONDS)
        if trainer.received_sigterm and isinstance(error, ProcessLost):
            raise SIGTERMException from None  # the others stopped on the same signal, only sooner
        raise


def end_processes(processes: Sequence["subprocess.Popen[bytes]"], grace: float) -> None:
    """Waits for processes to exit, ``grace`` seconds in total, and kills those that do not."""
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
