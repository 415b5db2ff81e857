"""A full disk: the file and the space are named, nothing is left half-written, and with space it goes on."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from forked_runs import Study, assert_same_weights, before_step, forked

from riskft.errors import NoSpaceError
from riskft.files import atomic_path

MEGABYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, and a way to make it larger."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, left: int) -> None:
    """Fills the disk up to so many bytes, by a file that can be removed."""
    status = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - left)))


def arguments(study: Study, *more: str) -> list[str]:
    # at one place for all: which of the files does not fit depends on what has been written before
    return study.arguments("fit", "--ckpt_path", "last", *more)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["cache", "maps", "checkpoints"])
def test_disk_full(tmp_path, tiny_manifest, small_disk, what):
    study = Study(tmp_path / "study", tiny_manifest)
    whole = Study(tmp_path / "whole", tiny_manifest)
    maps = f"[{{class_path: riskft.RiskMapCallback, init_args: {{store: {small_disk}/maps}}}}]"
    options, place = {
        "cache": (["--data.cache_dir", str(small_disk / "cache")], "cache/cases"),
        "maps": (["--trainer.callbacks", maps], "maps"),
        "checkpoints": (["--run.folder", str(small_disk / "run")], "run/checkpoints"),
    }[what]
    if what == "checkpoints":  # everything else of the run has its place
        full = before_step(1, lambda: fill(small_disk, 8 * 1024))
        failed = forked(arguments(study, *options), tmp_path / "failed", full)
    else:
        fill(small_disk, 96 * 1024)
        failed = forked(arguments(study, *options), tmp_path / "failed")
    assert failed.wait() == 1, failed.text
    assert f"riskft: {small_disk / place}" in failed.text
    assert "no space (" in failed.text
    assert "MB free on its file system" in failed.text
    assert "Traceback" not in failed.text
    assert not list(small_disk.rglob(".tmp-*"))
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = forked(arguments(study, *options), tmp_path / "done")
    assert done.wait() == 0, done.text
    undisturbed = forked(whole.arguments(), tmp_path / "undisturbed")
    assert undisturbed.wait() == 0
    run = small_disk / "run" if what == "checkpoints" else study.folder()
    assert_same_weights(whole.checkpoint(), torch.load(run / "checkpoints/last.ckpt", weights_only=True))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(2 * MEGABYTE)),
        lambda path: np.save(path, np.zeros(MEGABYTE)),
        lambda path: torch.save(torch.zeros(MEGABYTE), path),
    ],
)
def test_writers_that_run_out_of_space(small_disk, write):
    target = small_disk / "volume.npy"
    target.write_bytes(b"before")
    message = r"volume\.npy: cannot be written because there is no space \(0\.\d MB free"
    with pytest.raises(NoSpaceError, match=message), atomic_path(target) as temporary:
        write(temporary)
    assert target.read_bytes() == b"before"
    assert [path.name for path in small_disk.iterdir()] == ["volume.npy"]
