"""One process at a time."""

import os
import signal
import time

import pytest
from forked_runs import Forked, kill

from riskft.errors import InputError
from riskft.run.folder import RunFolder
from riskft.run.lock import held, is_held


def test_a_killed_process_leaves_no_lock(tmp_path):
    def die_inside() -> None:
        with RunFolder(tmp_path / "run").held():
            (tmp_path / "run/checkpoints").mkdir()
            (tmp_path / "run/checkpoints/.tmp-0123abcd.ckpt").write_bytes(bytes(100))
            kill()

    assert Forked(die_inside, tmp_path / "log").wait() == -9
    with RunFolder(tmp_path / "run").held():
        assert not list(tmp_path.rglob(".tmp-*"))  # what it was writing

    def look() -> None:
        with (
            pytest.raises(InputError, match=r"is in use by process .* on .*\. Wait"),
            RunFolder(tmp_path / "run").held(),
        ):
            pass

    with RunFolder(tmp_path / "run").held():
        other = Forked(look, tmp_path / "log")
        assert other.wait() == 0, other.text
    again = Forked(lambda: RunFolder(tmp_path / "run").held().__enter__(), tmp_path / "log")
    assert again.wait() == 0, again.text


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.lockf", none)
    with RunFolder(tmp_path).held():
        assert "cannot be locked ([Errno 95] Operation not supported): do not start a second process" in caplog.text


def test_a_forked_loader_that_outlives_a_killed_run_does_not_hold_its_lock(tmp_path):
    path = tmp_path / "run/lock"
    receiver, sender = os.pipe()
    pid = os.fork()
    if not pid:
        with held(path):
            loader = os.fork()
            if not loader:
                time.sleep(60)
                os._exit(0)
            os.write(sender, str(loader).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    loader = int(os.read(receiver, 20))
    os.waitpid(pid, 0)
    try:
        assert not is_held(path)
        with held(path):
            pass
    finally:
        os.kill(loader, signal.SIGKILL)
        os.close(receiver)
        os.close(sender)
