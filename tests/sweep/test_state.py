"""What a run's folder says of it, and that no run is overwritten or run twice at a time."""

import contextlib
import multiprocessing
import os
from pathlib import Path

import pytest

from riskft.commands.sweep import main, status_table
from riskft.errors import InputError
from riskft.run.folder import RunFolder
from riskft.run.lock import held, is_held
from riskft.sweep.plan import Run
from riskft.sweep.runner import run_step
from riskft.sweep.state import (
    Queued,
    State,
    last_line,
    last_metric,
    read_run,
    refuse_others,
    state_of,
    steps_done,
    write_record,
)


@pytest.fixture
def run(tmp_path):
    return Run(str(tmp_path / "runs/s/m/seed=0"), ["--a=1"], {"a": 1})


def folder_of(run):
    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def hold_for_ever(folder, ready):
    with held(RunFolder(folder).sweep_lock):
        ready.set()
        multiprocessing.Event().wait()


@contextlib.contextmanager
def held_elsewhere(folder):
    ready = multiprocessing.Event()
    holder = multiprocessing.Process(target=hold_for_ever, args=(folder, ready))
    holder.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        holder.kill()
        holder.join()


def test_states_of_a_run(run):
    assert state_of(run) == State("missing")
    write_record(run)
    assert state_of(run) == State("missing")
    assert state_of(run, {run.folder: Queued(7, False, "Priority")}) == State("waiting", "Priority")
    assert state_of(run, {run.folder: Queued(7, True)}) == State("running")
    folder = folder_of(run)
    (folder / "log.txt").write_text("first\nKilled\n\n")
    assert state_of(run) == State("failed", "it exited without an error message; the log's last line: Killed")
    with held_elsewhere(folder):
        assert state_of(run) == State("running")
    (folder / "failed.txt").write_text("fit: no such file\n")
    assert state_of(run) == State("failed", "fit: no such file")
    # a job that was put back in the queue has failed for the moment only
    assert state_of(run, {run.folder: Queued(7, False, "BeginTime")}).name == "waiting"
    write_record(run, ["fit"])
    assert state_of(run).name == "failed"
    write_record(run, ["fit", "test"])
    (folder / "metrics.csv").write_text("epoch,val/dice\n3,0.5\n4,\n")
    assert state_of(run, {run.folder: Queued(7, True)}) == State("finished", metric="val/dice 0.500 (epoch 3)")


def test_a_run_without_test_is_finished_after_fit(run):
    source = Run(run.folder, run.arguments, run.values, tested=False)
    write_record(source, ["fit"])
    assert state_of(source).name == "finished"
    assert read_run(Path(run.folder)) == source


def test_the_last_score_is_of_the_latest_part(tmp_path):
    assert last_metric(tmp_path) == ""
    (tmp_path / "metrics.csv").write_text("epoch,step,val/dice\n0,3,0.25\n1,6,0.75\n2,9,\n")
    (tmp_path / "metrics.1.csv").write_text("epoch,step,val/dice\n0,3,0.125\n")
    os.utime(tmp_path / "metrics.1.csv", (1, 1))
    assert last_metric(tmp_path) == "val/dice 0.750 (epoch 1)"
    # a run that went on and has no score yet
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n2,9,1.0\n")
    assert last_metric(tmp_path) == "val/dice 0.125 (epoch 0)"


def test_the_last_line_of_a_log(tmp_path):
    assert last_line(tmp_path / "log.txt") == "(no log)"
    (tmp_path / "log.txt").write_bytes(b"x" * 9000 + b"\n\xff broken\nbar 10%\rbar 90%\n\n  \n")
    assert last_line(tmp_path / "log.txt") == "bar 90%"


def test_other_options_and_other_runs_are_not_overwritten(run, tmp_path):
    other = Run(run.folder, ["--a=2", "--b=1"])
    write_record(run)
    refuse_others([other])  # planned, never started
    (Path(run.folder) / "log.txt").write_text("started\n")
    refuse_others([run])
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.yaml").write_text("seed_everything: 0\n")
    with pytest.raises(InputError) as raised:
        refuse_others([other, Run(str(foreign), [])])
    assert raised.value.problems == (
        f"{run.folder} was run with --a=1 where the sweep has --a=2 --b=1",
        f"{foreign} holds a run that no sweep started",
    )


def locked_for_others(folder) -> bool:
    """Asks in another process, as `riskft sweep status` does."""
    pid = os.fork()
    if not pid:
        os._exit(int(is_held(RunFolder(folder).sweep_lock)))
    return bool(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def test_two_processes_cannot_be_at_work_in_one_folder_and_the_lock_goes_with_its_process(run):
    folder = folder_of(run)
    write_record(run)
    with held_elsewhere(folder):
        assert is_held(RunFolder(folder).sweep_lock)
        with pytest.raises(InputError, match="is in use by process"):
            run_step(folder, "fit", print)
    assert not is_held(RunFolder(folder).sweep_lock)
    assert not (folder / "failed.txt").exists()


def test_a_step_that_fails_leaves_the_reason_and_one_that_is_done_is_left_alone(run):
    folder = folder_of(run)
    write_record(run, ["fit"])
    (folder / "failed.txt").write_text("old")
    commands = []

    def main_that_fails(arguments):
        assert not (folder / "failed.txt").exists()
        assert locked_for_others(folder)
        commands.append(arguments)
        try:
            read_run(folder / "nowhere")
        except InputError:
            raise SystemExit(1) from None

    run_step(folder, "fit", main_that_fails)
    assert commands == []
    with pytest.raises(SystemExit):
        run_step(folder, "test", main_that_fails, ["--trainer.devices=2"])
    assert commands == [["test", "--config", f"{run.folder}/config.yaml", "--trainer.devices=2"]]
    assert (
        folder / "failed.txt"
    ).read_text() == f"test: There is no {folder}/nowhere/sweep.json: no sweep has planned a run there.\n"
    assert steps_done(folder) == ["fit"]
    run_step(folder, "test", commands.append)
    assert steps_done(folder) == ["fit", "test"]


def test_fit_goes_on_from_the_last_checkpoint(run):
    commands = []
    write_record(run)
    run_step(Path(run.folder), "fit", commands.append)
    assert commands == [["fit", "--a=1", "--ckpt_path", "last"]]


def test_a_folder_that_no_sweep_planned_is_named(tmp_path):
    with pytest.raises(InputError, match="no sweep has planned"):
        run_step(tmp_path, "fit", print)
    with pytest.raises(InputError, match="Give the folder of a sweep"):
        main(["status", str(tmp_path)], print)


def test_the_table_counts_states(run):
    runs = [run, Run("b", []), Run("c", [])]
    names = ("finished", "failed", "finished")
    table = status_table(runs, {each.folder: State(name, "why") for each, name in zip(runs, names, strict=True)})
    assert table.title == "3 runs: 2 finished, 1 failed"
    assert table.row_count == 3
