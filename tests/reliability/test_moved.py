"""Runs and studies that are moved, copied or renamed."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from forked_runs import STEPS_AN_EPOCH, Study, forked
from jsonargparse import Namespace
from lightning.pytorch.strategies import SingleDeviceStrategy

from riskft.arguments.given import options_of
from riskft.arguments.moved import Moved, bring_along, moved_run, place_is_given, settle
from riskft.sweep.plan import Run
from riskft.sweep.state import read_run, refuse_others, write_record
from riskft.training.checkpoints import BestCheckpoint, moved_state


def state(folder, score=0.9):
    best = str(folder / "best.ckpt")
    callback = BestCheckpoint(folder / "best.ckpt")
    callback.best_k_models = {best: torch.tensor(score)}
    callback.best_model_path = callback.kth_best_model_path = best
    callback.best_model_score = callback.kth_value = torch.tensor(score)
    return callback.state_dict()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_the_best_score_stays_with_the_checkpoint(tmp_path, how):
    before, now = tmp_path / "before", tmp_path / "now"
    before.mkdir()
    (before / "best.ckpt").touch()
    kept = state(before)
    if how == "moved":
        before.rename(now)
    else:
        shutil.copytree(before, now)
    callback = BestCheckpoint(now / "best.ckpt")
    callback.load_state_dict(moved_state(kept, now))
    assert callback.best_model_score == pytest.approx(0.9)
    assert callback.best_k_models == {str(now / "best.ckpt"): torch.tensor(0.9)}
    assert callback.best_model_path == callback.kth_best_model_path == str(now / "best.ckpt")


def test_another_folder_is_not_taken_for_a_moved_one(tmp_path):
    """A resume of another run's checkpoint has no best one of its own yet, whatever the other's score."""
    (tmp_path / "other").mkdir()
    kept = state(tmp_path / "other")
    assert moved_state(kept, tmp_path / "own") == kept


def test_a_best_checkpoint_that_was_removed_is_not_waited_for(tmp_path):
    """A run that goes on and does not get better than 0.9 has a best checkpoint all the same."""
    kept = state(tmp_path)
    callback = BestCheckpoint(tmp_path / "best.ckpt")
    callback.load_state_dict(moved_state(kept, tmp_path))
    assert callback.check_monitor_top_k(SimpleNamespace(strategy=SingleDeviceStrategy()), torch.tensor(0.1))
    (tmp_path / "best.ckpt").touch()
    callback.load_state_dict(moved_state(kept, tmp_path))
    assert not callback.check_monitor_top_k(SimpleNamespace(strategy=SingleDeviceStrategy()), torch.tensor(0.1))


def record(folder, root, method="riskft", **more):
    folder.mkdir(parents=True)
    config = {"seed_everything": 0, "run": {"root": str(root), "study": "tiny", "method": method}, **more}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "wandb_id").write_text("tiny-1234")
    return folder


def test_a_config_that_is_not_where_it_says(tmp_path):
    before = record(tmp_path / "a/runs/tiny/riskft/seed=0", tmp_path / "a/runs")
    given = ["test", "--config", str(before / "config.yaml")]
    assert moved_run(options_of(given)) is None
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a")
    assert moved_run(options_of(["test", f"--config={link}/runs/tiny/riskft/seed=0/config.yaml"])) is None
    (tmp_path / "a").rename(tmp_path / "b")
    now = tmp_path / "b/runs/tiny/riskft/seed=0"
    given = ["test", "--config", str(now / "config.yaml")]
    assert moved_run(options_of(given)) == Moved(before, now)
    assert not place_is_given(options_of(given))
    assert place_is_given(options_of([*given, "--run.folder=elsewhere"]))
    # a config by itself is one that a user has made of it
    (now / "wandb_id").unlink()
    assert moved_run(options_of(given)) is None


def test_what_was_moved_along_and_what_was_not(tmp_path):
    before, now = tmp_path / "a/runs/tiny/riskft/seed=0", tmp_path / "b/runs/tiny/riskft/seed=0"
    moved = Moved(before, now)
    source = "runs/tiny/source/seed=0/best.ckpt"
    for name in (source, "cache/x", "data/x"):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).touch()
    given = Namespace(
        data=Namespace(cache_dir=str(tmp_path / "a/cache"), reader=Namespace(root=str(tmp_path / "a/data"))),
        model=Namespace(source=Namespace(checkpoint=str(tmp_path / "a" / source)), loss={"name": "dice"}),
        trainer=Namespace(callbacks=[Namespace(init_args=Namespace(store=str(tmp_path / "a/gone")))]),
    )
    bring_along(given, moved)
    assert given.model.source.checkpoint == str(tmp_path / "b" / source)
    assert given.data.cache_dir == str(tmp_path / "b/cache")
    assert given.data.reader.root == str(tmp_path / "a/data")
    assert given.trainer.callbacks[0].init_args.store == str(tmp_path / "a/gone")
    assert given.model.loss == {"name": "dice"}
    # moved and renamed: what is gone is looked for as seen from the run
    renamed = Moved(before, tmp_path / "b/runs/other/riskft/seed=0")
    assert renamed.here(str(tmp_path / "a/cache")) == str(tmp_path / "b/cache")
    assert renamed.here("") == ""


@pytest.mark.parametrize(
    ("now", "root", "folder"),
    [("/b/tiny/riskft/seed=0", "/b", None), ("/b/renamed/riskft/seed=0", "a", "/b/renamed/riskft/seed=0")],
)
def test_the_next_record_says_where_the_run_is(now, root, folder):
    options = Namespace(root="a", study="tiny", method="riskft", folder=None)
    settle(options, Moved(Path("/a/tiny/riskft/seed=0"), Path(now)), 0)
    assert (options.root, options.folder) == (root, folder)


def test_a_planned_run_of_a_sweep_goes_on_where_it_is_now(tmp_path):
    before, now = tmp_path / "a/run", tmp_path / "b/run"
    planned = Run(str(before), ["--config=c.yaml", f"--run.root={tmp_path / 'a'}"])
    write_record(planned)
    assert read_run(before) == planned
    (tmp_path / "a").rename(tmp_path / "b")
    moved = read_run(now)
    assert (moved.folder, moved.arguments) == (str(now), ["--config=c.yaml", f"--run.folder={now}"])
    (now / "config.yaml").touch()
    refuse_others([Run(str(now), ["--config=c.yaml", f"--run.root={tmp_path / 'b'}"])])


@pytest.mark.slow
def test_a_moved_run_goes_on_there_and_a_copy_leaves_the_original_alone(tmp_path, tiny_manifest):
    """What has been reported: the best checkpoint of a moved run was overwritten by a worse one."""
    study = Study(tmp_path / "study", tiny_manifest)
    first = forked(study.arguments("fit", "--trainer.max_epochs", "1"), tmp_path / "first")
    assert first.wait() == 0, first.text
    last = study.folder() / "checkpoints/last.ckpt"
    content = torch.load(last, weights_only=True)
    (name,) = (name for name in content["callbacks"] if "BestCheckpoint" in name)
    best = content["callbacks"][name]
    best["best_model_score"] = best["kth_value"] = torch.tensor(2.0)  # that no validation will reach
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], torch.tensor(2.0))
    torch.save(content, last)
    copy = tmp_path / "copies/renamed"
    shutil.copytree(study.folder(), copy)
    before = {path: path.stat().st_mtime_ns for path in study.folder().rglob("*")}
    bytes_of_best = (copy / "checkpoints/best.ckpt").read_bytes()
    more = ["fit", "--config", str(copy / "config.yaml"), "--ckpt_path", "last", "--trainer.max_epochs", "2"]
    gone_on = forked(more, tmp_path / "more")
    assert gone_on.wait() == 0, gone_on.text
    assert torch.load(copy / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2 * STEPS_AN_EPOCH
    assert (copy / "checkpoints/best.ckpt").read_bytes() == bytes_of_best
    assert {path: path.stat().st_mtime_ns for path in study.folder().rglob("*")} == before
    assert yaml.safe_load((copy / "config.yaml").read_text())["run"]["folder"] == str(copy)
