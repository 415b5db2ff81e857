"""A run that pauses, and goes on: the weights of an undisturbed run, and the scores at each pause."""

import csv
import math

import pytest
from forked_runs import Study, assert_same_weights, forked, ranks

from riskft import PauseAt
from riskft.training.record.options import trained_options

#: Which end in the middle of the third epoch.
EIGHT_STEPS = ("--trainer.max_epochs", "-1", "--trainer.max_steps", "8")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_manifest):
    """Eight steps in epochs of three with flips, noise, risk maps that are refreshed and a schedule."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), tiny_manifest)
    done = forked(study.arguments("fit", *EIGHT_STEPS), study.root / "log")
    assert done.wait() == 0, done.text
    return study


def pausing(study, at, *more):
    pause = ["--trainer.callbacks+=riskft.PauseAt", *([f"--trainer.callbacks.at={at}"] if at else [])]
    return study.arguments("fit", *pause, "--ckpt_path", "last", *more)


def scores(study):
    with (study.folder() / "validation.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_a_paused_run_ends_with_the_same_weights(tmp_path, tiny_manifest, undisturbed):
    study = Study(tmp_path, tiny_manifest)
    # not due by itself after the second epoch
    every = ("--trainer.check_val_every_n_epoch", "3")
    first = forked(pausing(study, 0.5, *EIGHT_STEPS, *every), tmp_path / "first")
    assert first.wait() == 0
    assert "The run is paused at step 6 of 8" in first.text  # step 4 is in the second epoch
    assert study.checkpoint()["global_step"] == 6
    again = forked(pausing(study, 0.5, *EIGHT_STEPS), tmp_path / "again")
    assert again.wait() == 0
    assert "is paused" in again.text
    assert "Nothing was trained" not in again.text
    assert study.checkpoint()["global_step"] == 6
    last = forked(pausing(study, None, *EIGHT_STEPS), tmp_path / "last")
    assert last.wait() == 0
    assert "is paused" not in last.text
    assert_same_weights(undisturbed.checkpoint(), study.checkpoint())
    rows = scores(study)
    assert [(row["at"], row["step"], row["class_name"]) for row in rows] == [
        *(("0.5", "6", name) for name in ("shell", "core")),
        *(("1.0", "8", name) for name in ("shell", "core")),
    ]
    assert {(row["subject"], row["steps"]) for row in rows} == {("case03", "8")}
    assert 0 < float(rows[0]["seconds"]) < float(rows[2]["seconds"])
    with (study.folder() / "metrics.csv").open() as stream:
        shown = [float(row["val/dice"]) for row in csv.DictReader(stream) if row["val/dice"]]
    assert math.isclose(sum(float(row["dice"]) for row in rows[2:]) / 2, shown[-1], abs_tol=1e-6)


@pytest.mark.slow
def test_two_processes_pause_together(tmp_path, even_manifest):
    study = Study(tmp_path, even_manifest)
    done = ranks(pausing(study, 1), tmp_path / "log")
    assert [process.wait() for process in done] == [0, 0]
    assert study.checkpoint()["global_step"] == 2  # the epoch of two processes with two volumes each
    assert [(row["step"], row["subject"], row["class_name"]) for row in scores(study)] == [
        ("2", "case04", "shell"),
        ("2", "case04", "core"),
    ]


@pytest.mark.slow
def test_a_run_that_stops_early_has_scores_too(tmp_path, tiny_manifest):
    study = Study(tmp_path, tiny_manifest)
    stops = {"monitor": "val/dice", "mode": "max", "stopping_threshold": "-1"}
    early = ("--trainer.callbacks+=EarlyStopping", *(f"--trainer.callbacks.{key}={stops[key]}" for key in stops))
    done = forked(pausing(study, None, *early), tmp_path / "log")
    assert done.wait() == 0, done.text
    assert [(row["at"], row["step"], row["steps"]) for row in scores(study)] == [("1.0", "3", "9")] * 2


def test_a_pause_is_not_an_option_of_the_weights():
    listed = [{"class_path": "riskft.PauseAt", "init_args": {"at": 0.25}}]
    assert trained_options({"trainer": {"callbacks": listed}}) == trained_options({"trainer": {"callbacks": None}})


@pytest.mark.parametrize("at", [0, -1, 1.5, math.nan, math.inf])
def test_an_unusable_step_is_refused(at):
    with pytest.raises(ValueError, match="Expected argument `at` to be at least 1, or a fraction of the run"):
        PauseAt(at)
