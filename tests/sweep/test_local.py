"""A sweep on this machine, through the command line: runs, skips what is finished, tells of what failed."""

import csv
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import riskft.sweep.local
from riskft.cli import main
from riskft.commands.interruptions import sigterm_raised
from riskft.errors import Terminated
from riskft.sweep.local import Commands, run_locally, run_steps
from riskft.sweep.plan import Run
from riskft.sweep.state import steps_done, write_record

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_local_sweep(tiny_manifest, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "300")
    root = tmp_path / "runs"
    parameters = {
        "config.base": {"value": "tests/cli/tiny.yaml"},
        "config.method": {"value": "configs/method/scratch.yaml"},
        "data.reader.init_args.csv": {"value": str(tiny_manifest)},
        "data.cache_dir": {"value": str(tmp_path / "cache")},
        "run.root": {"value": str(root)},
        "trainer.max_epochs": {"value": 1},
    }
    # the third needs more patches than there are
    rows = {"size": [{"name": size, "data.batch_size": size} for size in (1, 2, 64)]}
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(yaml.safe_dump({"name": "tiny-sweep", "parameters": parameters, "rows": rows}))
    main(["sweep", str(sweep)])
    printed = capsys.readouterr().out
    assert "3 runs, 3 to do" in printed
    assert printed.count("riskft fit --config=") == 3
    assert not root.exists()

    with pytest.raises(SystemExit) as stopped:
        main(["sweep", str(sweep), "--local", "-j", "2"])
    assert stopped.value.code == 1
    folders = [root / f"tiny/scratch,size={size}/seed=0" for size in (1, 2, 64)]
    assert [steps_done(folder) for folder in folders] == [["fit", "test"], ["fit", "test"], []]
    with (folders[0] / "cases.csv").open() as stream:
        assert [row["subject"] for row in csv.DictReader(stream)] == ["case04", "case04", "case05", "case05"]
    capsys.readouterr()
    main(["sweep", "status", str(root / "sweeps/tiny-sweep")])
    table = capsys.readouterr().out
    assert "3 runs: 2 finished, 1 failed" in table
    assert "too few patches" in (folders[2] / "failed.txt").read_text()
    assert table.count("val/dice") == 2
    main(["sweep", str(sweep), "--dry-run"])
    assert "3 runs, 1 to do" in capsys.readouterr().out

    # another sweep file under the same name does not overwrite what is there
    parameters["trainer.max_epochs"]["value"] = 2
    sweep.write_text(yaml.safe_dump({"sweeps": [{"name": "tiny-sweep", "parameters": parameters, "rows": rows}]}))
    with pytest.raises(SystemExit):
        main(["sweep", str(sweep), "--local"])
    assert "max_epochs=1 where the sweep has --trainer.max_epochs=2" in capsys.readouterr().err


@pytest.mark.parametrize("finished", [False, True])
def test_a_crash_is_named_and_undoes_nothing(tmp_path, finished):
    """Native code may end a process without an error message, even when its work is done and recorded."""
    run = Run(str(tmp_path), ["--config=x.yaml"])
    steps = []

    def process(target, args):
        steps.append(args[2])
        if finished:
            write_record(run, steps)
        return SimpleNamespace(start=lambda: None, join=lambda: None, exitcode=-signal.SIGSEGV)

    state = run_steps(run, {}, Commands(print, SimpleNamespace(Process=process)))
    assert steps == (["fit", "test"] if finished else ["fit"])
    assert (tmp_path / "log.txt").read_text() == "".join(f"riskft {step}: ended by SIGSEGV\n" for step in steps)
    assert state.name == ("finished" if finished else "failed")
    assert finished or "ended by SIGSEGV" in state.reason


class Endless:
    """A process that goes on until it is told to end."""

    started: list["Endless"]
    exitcode: int | None = None

    def __init__(self, target, args):
        self.over = threading.Event()

    def start(self):
        self.started.append(self)

    def join(self):
        assert self.over.wait(20)

    def terminate(self):
        self.exitcode = -signal.SIGTERM
        self.over.set()


@pytest.fixture
def endless(monkeypatch):
    monkeypatch.setattr(Endless, "started", [], raising=False)
    monkeypatch.setattr(riskft.sweep.local, "prepared_processes", lambda: SimpleNamespace(Process=Endless))
    monkeypatch.setattr(riskft.sweep.local, "CTRL_C_SECONDS", 0.1)
    return Endless.started


def planned(root):
    runs = [Run(str(root / name), ["--config=x.yaml"]) for name in "abc"]
    for run in runs:
        write_record(run)
    return runs


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_an_interruption_ends_what_runs_and_starts_nothing_else(tmp_path, endless, number, error):
    """Sent to the sweep alone, as by ``kill`` or a scheduler; a Ctrl-C in a terminal reaches its processes too."""
    interruption = threading.Timer(0.5, os.kill, (os.getpid(), number))
    interruption.start()
    with sigterm_raised(), pytest.raises(error):
        list(run_locally(planned(tmp_path), jobs=2, command=print))
    assert [process.exitcode for process in endless] == [-signal.SIGTERM] * 2
    assert "ended by SIGTERM" in (tmp_path / "a/log.txt").read_text()


def test_a_sweep_that_is_left_while_it_tells_of_a_run_ends_the_others(tmp_path, endless):
    def end_one():
        endless[0].terminate()

    ended = run_locally(planned(tmp_path), jobs=2, command=print)
    threading.Timer(0.5, end_one).start()  # which has not started yet
    next(ended)
    ended.close()
    assert all(process.exitcode == -signal.SIGTERM for process in endless)


def test_an_agents_run_ends_with_it(tmp_path, endless):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with sigterm_raised(), pytest.raises(Terminated):
        run_steps(planned(tmp_path)[0], {}, Commands(print))
    assert [process.exitcode for process in endless] == [-signal.SIGTERM]
