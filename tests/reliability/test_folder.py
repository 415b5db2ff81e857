"""One training at a time in a run folder."""

import time

import pytest
from forked_runs import STEPS_AN_EPOCH, Study, before_step, forked


@pytest.mark.slow
def test_two_fits_at_once(tmp_path, tiny_manifest):
    """The second refuses, whatever it was started with, and leaves the first one alone."""
    study = Study(tmp_path, tiny_manifest)
    go = tmp_path / "go"

    def wait() -> None:
        (tmp_path / "waiting").touch()
        while not go.exists():
            time.sleep(0.02)

    first = forked(study.arguments(), tmp_path / "first", before_step(STEPS_AN_EPOCH, wait))
    deadline = time.monotonic() + 60
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < deadline, first.text
        time.sleep(0.05)
    for number, options in enumerate(([], ["--ckpt_path", "last"], ["--run.overwrite", "true"])):
        second = forked(study.arguments("fit", *options), tmp_path / f"second{number}")
        assert second.wait() == 1
        assert f"is in use by process {first.pid} on " in second.text
        assert "Traceback" not in second.text
    go.touch()
    assert first.wait() == 0, first.text
    assert study.checkpoint()["global_step"] == 3 * STEPS_AN_EPOCH


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (["--run.overwrite", "true", "--data.labels.classes", "{core: [2]}"], "are in no class"),
        (["--run.overwrite", "true", "--model.schedule.init_args.power", "-1"], "model.schedule (PolynomialLR) fails"),
        (["--ckpt_path", "last", "--model.optimizer.init_args.lr", "-1"], "AdamW cannot be built with the options"),
        (["--ckpt_path", "last", "--model.inferer.init_args.padding_mode", "none"], "model.inferer"),
    ],
)
def test_a_refused_fit_leaves_the_run_as_it_was(tmp_path, tiny_manifest, mistake, words):
    study = Study(tmp_path, tiny_manifest)
    first = forked(study.arguments("fit", "--trainer.max_epochs", "1"), tmp_path / "first")
    assert first.wait() == 0, first.text
    before = {path: path.read_bytes() for path in study.folder().rglob("*") if path.is_file()}
    second = forked(study.arguments("fit", *mistake), tmp_path / "second")
    assert second.wait() == 1, second.text
    assert words in second.text
    assert "Traceback" not in second.text
    after = {path: path.read_bytes() for path in study.folder().rglob("*") if path.is_file()}
    assert after == before
