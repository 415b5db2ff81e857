"""Folders that cannot be written, and odd places: found before any work, with the true reason."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from forked_runs import Study, forked

import riskft.files
from riskft.cli import main
from riskft.commands.messages import message
from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.files import atomic_path, keep_old
from riskft.risk.store import RiskStore
from riskft.run.folder import RunFolder
from riskft.run.places import refuse_unwritable, why_not_writable


@pytest.fixture
def odd(tmp_path):
    """A file, a link to nowhere, and a loop of links."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return tmp_path


def test_places_that_cannot_be_written(odd):
    assert why_not_writable(odd / "new/folder") is None
    assert why_not_writable(odd) is None
    assert "is a file, expected a folder" in (why_not_writable(odd / "file") or "")
    assert f"{odd / 'file'} is a file" in (why_not_writable(odd / "file/below") or "")
    assert f"is a link to {odd / 'gone'}, which does not exist" in (why_not_writable(odd / "dangling") or "")
    assert why_not_writable(odd / "loop") is not None
    assert sorted(path.name for path in odd.iterdir()) == ["dangling", "file", "loop"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_what_the_system_says_is_the_reason(tmp_path, monkeypatch, number):
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    assert why_not_writable(tmp_path) == os.strerror(number)


def test_all_places_are_named_at_once(odd):
    with pytest.raises(InputError) as raised:
        refuse_unwritable({"--out": odd / "file", "--data.cache_dir": odd / "dangling", "fine": odd})
    assert len(raised.value.problems) == 2
    with pytest.raises(InputError, match=r"^\S+file: cannot be written: it is a file.*\(--out\)\.$"):
        refuse_unwritable({"--out": odd / "file"})


@pytest.mark.parametrize("place", ["file", "dangling"])
@pytest.mark.parametrize(
    "command",
    [["compare", "no run", "--out"], ["validity", "no run", "--scratch", "none", "--out"], ["data", "phantom"]],
)
def test_out_is_looked_at_first(odd, place, command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, str(odd / place)])
    assert stopped.value.code == 1
    assert "cannot be written: it is a" in capsys.readouterr().err
    assert (odd / "file").read_text() == "mine"


def test_a_failed_removal_does_not_hide_the_true_error(tmp_path, monkeypatch):
    def read_only(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "file"):
        raise ZeroDivisionError
    RiskStore(tmp_path, {}, {}).drop_probabilities("a")  # there are none


def test_a_target_below_a_file_is_named(odd):
    with pytest.raises(InputError, match=r"file/below/x\.csv: cannot be written \("):
        riskft.files.write_text(odd / "file/below/x.csv", "text")


def test_an_error_about_another_file_is_not_put_down_to_the_target(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), atomic_path(tmp_path / "target"):
        (tmp_path / "source").read_text()


def test_errors_of_the_system(tmp_path):
    full = message(OSError(errno.ENOSPC, "No space left on device"))
    assert full is not None
    assert "for a file that the system does not name" in full
    assert "MB free" not in full
    assert "MB free" in (message(OSError(errno.ENOSPC, "No space left", str(tmp_path / "x"))) or "")
    assert message(PermissionError(errno.EACCES, "Permission denied", "/a")) == "/a: Permission denied."
    assert message(ValueError("a fault of riskft's own")) is None


def test_a_backup_never_overwrites_another(tmp_path):
    for name in ("cases.csv", "cases.2.csv", "cases.x.csv"):
        (tmp_path / name).write_text(name)
    keep_old(tmp_path / "cases.csv")  # a count of the backups would say 2 too
    assert (tmp_path / "cases.2.csv").read_text() == "cases.2.csv"
    assert (tmp_path / "cases.3.csv").read_text() == "cases.csv"


def test_a_backup_of_a_file_that_is_not_text(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfea")
    keep_old(tmp_path / "cases.csv", unless="a")
    assert (tmp_path / "cases.1.csv").read_bytes() == b"\xff\xfea"


def test_a_folder_where_a_run_has_a_file(tmp_path):
    (tmp_path / "metrics.csv").mkdir()
    (tmp_path / "cases.csv").write_text("kept")
    with pytest.raises(InputError, match=r"metrics.csv: is a folder, expected a file. Move it away."):
        RunFolder(tmp_path).refuse_finished(overwrite=True, resuming=False)
    assert (tmp_path / "cases.csv").read_text() == "kept"


def test_a_cache_that_is_not_full_and_cannot_be_written(odd):
    (odd / "scan.nii").write_bytes(b"never read as an image")
    cache = PreparedCache(odd / "file", LabelMap({"a": [1]}), Preprocessing())
    with pytest.raises(InputError, match=r"1 of 1 cases are not in the cache, which is not writable: it is a file"):
        cache.prepare([Case("a", {"t1": odd / "scan.nii"})])


@pytest.mark.slow
def test_a_full_cache_need_only_be_read(tmp_path, tiny_manifest):
    """As clusters share them; the digests of the scans, of other paths there, are not written either."""
    study = Study(tmp_path, tiny_manifest)
    first = forked(study.arguments(name="first"), tmp_path / "first")
    assert first.wait() == 0, first.text
    (tmp_path / "cache/digests.json").write_text(json.dumps({}))
    (tmp_path / "cache/checks.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}

    def read_only() -> None:
        """Fails each change below the cache, as root too would see it on a read-only file system."""
        for name in ("open", "mkdir", "unlink", "rename", "replace", "rmdir"):
            setattr(os, name, guarded(getattr(os, name)))

    def guarded(function):
        def call(path, *arguments, **options):
            writes = function.__name__ != "open" or (
                arguments and arguments[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes and str(path).startswith(str(tmp_path / "cache")):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            return function(path, *arguments, **options)

        return call

    second = forked(study.arguments(name="second"), tmp_path / "second", read_only)
    assert second.wait() == 0, second.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.name[0] != "."} == before
