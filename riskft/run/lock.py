"""A lock on a file, held by one process at a time.

This is our own because `filelock` ties a lock to the open file: a forked data loader that outlives a killed run would
keep holding it. POSIX record locks belong to the process, work over NFS, and end with the process. Two rules follow:
a process must not open a file whose lock it holds, because closing any descriptor releases the lock; and it cannot see
a lock of its own.
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
def held(
    path: Path, patience: float = 0.0, otherwise: str = "choose another run.study, run.method or seed_everything"
) -> Iterator[None]:
    """Locks a file and writes the holder into it. Warns and goes on if the file system has no locks.

    It creates the file and its folder if needed, waits up to ``patience`` seconds, and raises InputError if another
    process still holds the lock. ``otherwise`` is what its user can do besides waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with path.open("a+", encoding="utf-8") as stream:
        while not _taken(stream.fileno(), path):
            if time.monotonic() >= deadline:
                stream.seek(0)
                raise InputError(
                    f"{path.parent} is in use by {stream.read().strip() or 'another process'}. Wait until it has "
                    f"finished, or {otherwise}."
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
    """Whether another process has locked a file. The holder must not ask: it would release its own lock."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8") as stream:
        # shared, so that two processes that ask do not mistake each other for the holder
        return not _taken(stream.fileno(), path, shared=True)


def _taken(descriptor: int, path: Path, shared: bool = False) -> bool:
    """Locks an open file; returns False if another process holds the lock, True also where there are no locks."""
    try:
        import fcntl  # not on Windows

        fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        if getattr(error, "errno", None) in (errno.EACCES, errno.EAGAIN):
            return False
        if not shared:
            log.warning("%s cannot be locked (%s): do not start a second process there.", path.parent, error)
    return True
