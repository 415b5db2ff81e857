"""One training at a time in a run folder."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riskft.errors import InputError

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run folder for this process; for the first one of a run.

    The lock is the operating system's, so that a process that dies, however it dies, leaves none behind. It is one of
    a process and not of an open file: forked loaders of the data do not keep it.

    Args:
        folder: The run folder; made if it is not there.

    Raises:
        InputError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as stream:
        if not take_lock(stream.fileno(), folder):
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise InputError(
                f"{folder} is in use: {holder} is training there. Wait until it has finished, or choose another "
                "run.study, run.method or seed_everything."
            )
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        # a killed process can leave files of any size that no one will ever finish
        for left in [*folder.glob(".tmp-*"), *folder.glob("checkpoints/.tmp-*")]:
            if left.is_file():
                left.unlink(missing_ok=True)
        try:
            yield
        finally:
            stream.truncate(0)


def take_lock(descriptor: int, folder: Path) -> bool:
    """Takes the lock of an open file for this process; returns whether it was free, or there are none on this system.

    The lock is the process's: forked ones do not have it, and it goes as soon as this process closes the file, through
    whichever descriptor.

    Args:
        descriptor: The file, open for writing.
        folder: The folder that the lock is for, for messages.
    """
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if getattr(error, "errno", None) in (errno.EACCES, errno.EAGAIN):
            return False
        log.warning("%s cannot be locked (%s): take care that no second training starts in it.", folder, error)
    return True
