"""Processes of the warm Python that end early, and systems where it cannot work."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from warm_python import warm_python

#: Prints the id of the process that starts all others, and whether Ctrl-C works.
SERVER = """
import os, signal
status = open(f"/proc/{os.getppid()}/status").read()
print(status.partition("PPid:")[2].split()[0], signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def run(program, code):
    return subprocess.run([program, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_neither_ctrl_c_nor_a_process_that_says_nothing_ends_it():
    with warm_python() as program:
        server, _ = run(program, SERVER).stdout.split()
        os.kill(int(server), signal.SIGINT)
        for said in (b"", b"half of its argu"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(program.with_name("socket")))
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(60)
                assert connection.recv(1) == b""  # its process has ended
        assert run(program, SERVER).stdout.split() == [server, "True"]
        assert run(program, "import os; os.kill(os.getpid(), 9)").returncode == -signal.SIGKILL
    assert not program.exists()


def test_where_it_cannot_work_there_is_the_plain_python(monkeypatch, tmp_path):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with warm_python() as program:
        assert program == Path(sys.executable)
    assert not list(long.iterdir())
