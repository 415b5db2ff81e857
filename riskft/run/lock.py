"""The lock of a file, for one process at a time.

Our own, because the lock of the package `filelock` belongs to the open file: a forked loader of the data that outlives
a killed run would go on holding it. POSIX record locks belong to the process. They also work over NFS, and vanish with
the process, however it ends. Two rules follow from them: a process must not open a file whose lock it holds, because
closing any descriptor of it gives the lock up; and it does not notice that it holds a lock itself.
"""

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from riskft.errors import InputError

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2


@contextmanager
def held(path: Path, patience: float = 0.0) -> Iterator[None]:
    """Holds the lock of a file, which says who holds it.

    Where the file system has no locks, this warns and goes on.

    Args:
        path: The file; created with its folder if it does not exist.
        patience: How long to wait for another process to give it up, in seconds.

    Raises:
        InputError: If another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("a+", encoding="utf-8") as stream:
        while not _taken(stream.fileno(), path):
            if time.monotonic() >= deadline:
                stream.seek(0)
                raise InputError(
                    f"{path.parent} is in use: {stream.read().strip() or 'another process'} is at work there. Wait "
                    "until it has finished, or choose another run.study, run.method or seed_everything."
                )
            time.sleep(POLL_SECONDS)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock of a file. Not for the process that holds it, which would give it up."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8") as stream:
        # shared, so that two processes that ask do not take each other for the holder
        return not _taken(stream.fileno(), path, shared=True)


def _taken(descriptor: int, path: Path, shared: bool = False) -> bool:
    """Takes the lock of an open file; returns whether it was free, or there are no locks on this system."""
    try:
        import fcntl  # not on Windows

        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if getattr(error, "errno", None) in (errno.EACCES, errno.EAGAIN):
            return False
        if not shared:
            log.warning("%s cannot be locked (%s): do not start a second process there.", path.parent, error)
    return True
