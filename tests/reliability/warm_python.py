"""A Python that starts at once: each of its processes is a fork of this one, and draws no figures.

Launchers that start a riskft command in processes of their own (SLURM, torchrun) start this program in the place of
``sys.executable``. It is as good as the real one for them: it has their environment, files, arguments and signals, and
ends as the command does.
"""

import contextlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lightning_utilities.core.rank_zero import rank_zero_only
from made_parsers import make_parsers, use_made_parsers
from pictures import leave_out_figures

from riskft.compat import import_wandb
from riskft.distributed import RANKS

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

PROGRAM = """#!{python} -IS
import contextlib, json, os, signal, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
answers = server.makefile()
process = int(answers.readline())

def forward(number, frame):
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)

for number in {signals}:
    signal.signal(number, forward)
status = int(answers.readline())
if status < 0:
    with contextlib.suppress(OSError):  # SIGKILL has no other action
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@contextlib.contextmanager
def warm_python(*commands: str) -> Iterator[Path]:
    """Yields the program, which works inside the ``with`` block, quickest for those commands of riskft.

    Where it could not work, this is ``sys.executable``.
    """
    # a short name, for the path of a socket has at most 107 characters
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        path, program = f"{folder}/socket", Path(folder, "python")
        if not _would_work(folder, path):
            yield Path(sys.executable)
            return
        import_wandb()  # which each process would import
        make_parsers(*commands)
        program.write_text(PROGRAM.format(python=sys.executable, path=path, signals=[*map(int, SIGNALS)]))
        program.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(32)
            server = os.fork()
            if server == 0:
                try:
                    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest; _end restores it
                    _serve(listener)
                except BaseException:  # such as a process that is killed before it says what it runs
                    traceback.print_exc()
                finally:
                    os._exit(70)
        try:
            yield program
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)


def _would_work(folder: str, path: str) -> bool:
    """Whether the system, the folder of the program and the path of its socket allow it."""
    if not hasattr(os, "pidfd_open") or " " in sys.executable or len(os.fsencode(path)) > 107:
        return False
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _serve(listener: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    leave_out_figures()
    use_made_parsers()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> NoReturn:
    """Starts one process, and kills it if the program that stands for it is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    arguments, folder, environment = json.loads(connection.makefile().readline())
    process = os.fork()
    if process == 0:
        connection.close()
        _end(arguments, folder, environment, files)
    with contextlib.suppress(OSError):  # if the program was killed, which the next lines see
        connection.sendall(f"{process}\n".encode())
    ended = os.pidfd_open(process)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _end(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> NoReturn:
    """Becomes a process of its own, and runs ``[-u] -c CODE ...``, ``-m MODULE ...`` or ``SCRIPT ...``."""
    status = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        logging.getLogger("riskft").handlers.clear()  # which write where this process's messages go
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        rank_zero_only.rank = int(next((environment[name] for name in RANKS if name in environment), 0))
        status = _status([argument for argument in arguments if argument != "-u"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(arguments: list[str]) -> int:
    try:
        if arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        elif arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        status: Any = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    return status
