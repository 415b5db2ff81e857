"""Finding run folders, and learning curves from kept parts."""

import pytest
from compare_study import write_run

from riskft.analysis.curves import LearningCurve, read_curve
from riskft.analysis.runs import find_runs
from riskft.errors import InputError

ONE = {("a", "core"): 0.5}


def test_runs_are_found_at_and_below_folders_once(tmp_path):
    write_run(tmp_path / "s/vanilla/seed=1", seed=1, scores=ONE)
    write_run(tmp_path / "s/vanilla/seed=0", seed=0, scores=ONE)
    named = write_run(tmp_path / "elsewhere", study="t", method="riskft,lr=0.1", seed=7, scores=ONE)
    untested = write_run(tmp_path / "s/source/seed=0", method="source")
    # results that were copied without the config
    copied = tmp_path / "u/scratch/seed=4"
    write_run(copied, scores=ONE)
    (copied / "config.yaml").unlink()
    # none of these is a run: a report, a network's description, what lies in a run folder
    (tmp_path / "report").mkdir()
    (tmp_path / "report/cases.csv").write_text("study,method,seed,subject,class_name,dice\n")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/config.yaml").write_text("network_def: {}\n")
    write_run(named / "wandb/files", scores=ONE)
    found = find_runs([tmp_path, tmp_path / "s", named], "dice")
    assert [(run.study, run.method, run.seed) for run in found.runs] == [
        ("s", "vanilla", 0),
        ("s", "vanilla", 1),
        ("t", "riskft,lr=0.1", 7),
        ("u", "scratch", 4),
    ]
    assert found.runs[0].scores == ONE
    assert found.untested == [untested]


def test_bad_folders_are_named_together(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        find_runs([tmp_path / "empty", tmp_path / "gone"], "dice")
    assert len(caught.value.problems) == 2
    assert "it holds no run" in caught.value.problems[0]
    assert "no such folder" in caught.value.problems[1]
    write_run(tmp_path / "a")
    with pytest.raises(InputError, match="None of the runs has been tested"):
        find_runs([tmp_path], "dice")


def test_bad_and_double_runs_are_named_together(tmp_path):
    write_run(tmp_path / "a", scores=ONE)
    write_run(tmp_path / "b", scores=ONE)
    (write_run(tmp_path / "c", method="m") / "cases.csv").write_text("subject,class_name\na,core\n")
    (write_run(tmp_path / "d", method="n") / "cases.csv").write_text("subject,class_name,dice\na,core,much\n")
    (write_run(tmp_path / "e", method="o", seed="true", scores=ONE))
    with pytest.raises(InputError) as caught:
        find_runs([tmp_path], "dice")
    assert len(caught.value.problems) == 4
    text = str(caught.value)
    assert "c/cases.csv: has no dice" in text
    assert "d/cases.csv: dice is not a number" in text
    assert "seed_everything" in text
    assert "a and" in text
    assert "are both study s, method vanilla, seed 0" in text


def test_curves_go_through_kept_parts_and_what_was_done_again_counts(tmp_path):
    (tmp_path / "metrics.1.csv").write_text(
        "epoch,risk/leep,step,train/loss,val/dice\n,-0.2,0,,\n0,,9,0.9,\n0,,9,,0.4\n1,,19,0.8,\n1,,29,0.7,\n"
    )
    (tmp_path / "metrics.2.csv").write_text("epoch,step,train/loss\n1,19,0.75\n")
    # ten parts before: numbers, not letters, give the order; a killed process left half a line
    (tmp_path / "metrics.10.csv").write_text("epoch,step,train/loss\n2,29,0.65\n2,39,0.55\n2,4")
    (tmp_path / "metrics.csv").write_text(
        "epoch,risk/leep,step,train/loss,val/dice\n,-0.2,0,,\n3,,39,0.5,\n3,,49,nan,\n3,,49,,0.6\n"
    )
    assert read_curve(tmp_path, "train/loss") == LearningCurve((9, 19, 29, 39), (0.9, 0.75, 0.65, 0.5))
    assert read_curve(tmp_path, "val/dice") == LearningCurve((9, 49), (0.4, 0.6))
    assert read_curve(tmp_path, "other") == LearningCurve((), ())
    assert read_curve(tmp_path / "gone", "val/dice") == LearningCurve((), ())
