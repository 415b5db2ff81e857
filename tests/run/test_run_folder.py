"""The names in a run folder, and what is read from it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from riskft.errors import InputError
from riskft.run.folder import RunFolder, recorded_folder
from riskft.run.record import git_commit
from riskft.run.wandb_files import keep_run_id, run_id


def write_run(root):
    """Writes the config and the W&B id of a run."""
    folder = root / "tiny/riskft/seed=0"
    folder.mkdir(parents=True)
    config = {"seed_everything": 0, "run": {"root": str(root), "study": "tiny", "method": "riskft"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "wandb_id").write_text("tiny-1234")
    return folder


def test_a_new_run_removes_what_it_will_write_and_nothing_else(tmp_path):
    mine = ["checkpoints/best.ckpt", "heatmaps/val_a.png", "cases.csv", "cases.1.csv", "metrics.2.csv", "record.json"]
    others = ["risk/summary.json", "predictions/a.nii.gz", "metrics.old.csv", "notes.txt", "wandb_id"]
    for name in (*mine, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    RunFolder(tmp_path).clear()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)
    RunFolder(tmp_path).clear()


@pytest.mark.parametrize("name", ["checkpoints/last.ckpt", "cases.csv", "metrics.csv"])
def test_a_run_is_not_started_where_one_is(tmp_path, name):
    run = RunFolder(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    run.refuse_finished(overwrite=False, resuming=False)  # an empty file is nothing to lose
    (tmp_path / name).write_text("content")
    with pytest.raises(InputError, match="already holds a run"):
        run.refuse_finished(overwrite=False, resuming=False)
    run.refuse_finished(overwrite=True, resuming=False)
    run.refuse_finished(overwrite=False, resuming=True)


def test_the_study_the_method_and_the_seed(tmp_path):
    run = RunFolder(tmp_path / "study/method/seed=3")
    run.path.mkdir(parents=True)
    assert run.name() == ("study", "method", 3)
    run.config.write_text("seed_everything: 4\nrun: {method: another}")
    assert run.name() == ("study", "another", 4)
    run.config.write_text("seed_everything: true")
    assert run.name() == ("study", "method", 3)
    with pytest.raises(InputError, match="the folder is not called seed=<n>"):
        RunFolder(tmp_path).name()
    run.config.write_text("a: [")
    with pytest.raises(InputError, match=r"config\.yaml: is not YAML"):
        run.name()


def test_where_a_config_says_that_its_run_is():
    run = {"root": "r", "study": "s", "method": "m", "overwrite": False, "of another version": 1}
    assert recorded_folder({"run": run, "seed_everything": 3}) == Path("r/s/m/seed=3")
    assert recorded_folder({"run": {**run, "folder": "f"}, "seed_everything": 3}) == Path("f")
    assert recorded_folder({"run": run, "trainer": {"default_root_dir": "d"}}) == Path("d")
    assert recorded_folder({"run": run}) is None
    assert recorded_folder({}) is None


def test_a_copy_has_a_wandb_run_of_its_own_and_a_moved_run_keeps_its(tmp_path):
    own = write_run(tmp_path / "a")
    assert run_id(RunFolder(own), renew=False) == "tiny-1234"
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = tmp_path / "b/tiny/riskft/seed=0"
    found = run_id(RunFolder(copy), renew=False)
    assert found != "tiny-1234"
    assert run_id(RunFolder(copy), renew=False) == found
    assert run_id(RunFolder(own), renew=False) == "tiny-1234"
    (tmp_path / "a").rename(tmp_path / "c")
    assert run_id(RunFolder(tmp_path / "c/tiny/riskft/seed=0"), renew=False) == "tiny-1234"


def test_the_name_in_w_and_b_changes_only_when_the_new_run_begins(tmp_path):
    run = RunFolder(tmp_path)
    first = run_id(run, renew=True)
    second = run_id(run, renew=True)
    assert first != second
    assert run_id(run, renew=False) == first
    keep_run_id(run, second)
    assert run_id(run, renew=False) == second


def test_maps_are_found_where_run_and_store_were_moved_together_and_where_only_one_was(tmp_path):
    def maps_of(folder: Path) -> Path:
        return RunFolder(folder).risk.store().weights_folder

    maps = tmp_path / "a/cache/risk/1/2"
    maps.mkdir(parents=True)
    summary = tmp_path / "a/run/risk/summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"maps": str(maps), "maps_from_here": "../../cache/risk/1/2"}))
    assert maps_of(tmp_path / "a/run") == maps
    (tmp_path / "a/run").rename(tmp_path / "run")
    assert maps_of(tmp_path / "run") == maps
    (tmp_path / "run").rename(tmp_path / "a/run")
    (tmp_path / "a").rename(tmp_path / "b")
    assert maps_of(tmp_path / "b/run") == tmp_path / "b/cache/risk/1/2"
    (tmp_path / "b/run/risk/summary.json").write_text("{}")
    assert RunFolder(tmp_path / "b/run").risk.store() is None
    assert RunFolder(tmp_path).risk.store() is None


def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "own.py").touch()
    (tmp_path / ".gitignore").write_text(".venv")
    git("add", "own.py", ".gitignore")
    git("commit", "-m", "one")
    installed = tmp_path / ".venv/lib/riskft/run/folder.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    assert git_commit(installed) == "unknown"
    assert len(git_commit(tmp_path / "own.py")) == 12
    (tmp_path / "own.py").write_text("changed")
    assert git_commit(tmp_path / "own.py").endswith("-dirty")
    # in a hook of another repository, git says so in the environment
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert git_commit(installed) == "unknown"
