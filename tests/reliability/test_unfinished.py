"""A prediction that was stopped goes on with what is missing."""

import errno
import os

import pytest
from forked_runs import Study, forked, ranks

import riskft.training.predictions
from riskft.training.unfinished import Unfinished


def test_what_counts_as_finished(tmp_path):
    file = tmp_path / "a.nii.gz"
    file.write_text("whole")
    one = Unfinished(tmp_path, "weights")
    assert not one.has("a")
    one.add("a", "scan", [file])
    assert one.has("a")
    assert one.has("a", "scan")
    assert not one.has("a", "another scan")
    assert not one.has("b")
    assert not Unfinished(tmp_path, "other weights").has("a")
    os.utime(file, ns=(1, 1))  # somebody else's now
    assert not one.has("a")
    one.add("a", "scan", [file])
    (tmp_path / ".unfinished/a.json").write_text("[")
    assert not one.has("a")
    one.end()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_predict_after_a_full_disk(tmp_path, tiny_manifest):
    study = Study(tmp_path, tiny_manifest)
    fit = forked(study.arguments("fit", "--trainer.max_epochs", "1"), tmp_path / "fit")
    assert fit.wait() == 0, fit.text
    out = tmp_path / "out"
    predict = ["predict", "--config", str(study.folder() / "config.yaml"), "--out", str(out)]

    def fill_after_one() -> None:
        original = riskft.training.predictions.write_native

        def write(path, *arguments):
            if list(out.glob("*.nii.gz")):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            original(path, *arguments)

        riskft.training.predictions.write_native = write

    full = forked(predict, tmp_path / "full", fill_after_one)
    assert full.wait() == 1, full.text
    assert "no space" in full.text
    (first,) = out.glob("*.nii.gz")
    written = first.stat().st_mtime_ns
    # another checkpoint, or other options, is refused as ever
    other = forked([*predict, "--ckpt_path", "last", "--probabilities", "true"], tmp_path / "other")
    assert other.wait() == 1
    assert "1 output files exist" in other.text
    again = forked(predict, tmp_path / "again")
    assert again.wait() == 0, again.text
    assert "1 of 2 segmentations are finished" in again.text
    assert sorted(path.name for path in out.iterdir()) == ["case04.nii.gz", "case05.nii.gz"]
    assert first.stat().st_mtime_ns == written
    # and once all are there they are not written again
    third = forked(predict, tmp_path / "third")
    assert third.wait() == 1
    assert "2 output files exist" in third.text


@pytest.mark.slow
def test_predict_on_two_processes_goes_on_after_the_disk_of_one_was_full(tmp_path, tiny_manifest):
    study = Study(tmp_path, tiny_manifest)
    fit = forked(study.arguments("fit", "--trainer.max_epochs", "1", method="scratch"), tmp_path / "fit")
    assert fit.wait() == 0, fit.text
    out = tmp_path / "out"
    predict = ["predict", "--config", str(study.folder() / "config.yaml"), "--out", str(out)]

    def fill(rank: int) -> None:
        def write(path, *arguments):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        if rank == 1:
            riskft.training.predictions.write_native = write

    full = ranks(predict, tmp_path / "full", fill)
    assert [process.wait() for process in full] == [1, 1], full[1].text
    assert "no space" in full[1].text
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert set(before) <= {"case04.nii.gz"}  # the first process may have been faster, or not
    again = ranks(predict, tmp_path / "again")
    assert [process.wait() for process in again] == [0, 0], again[0].text
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert after.keys() == {"case04.nii.gz", "case05.nii.gz"}
    assert before.items() <= after.items()
