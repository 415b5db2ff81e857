"""Each benchmark works at tiny sizes, and the table is put together from their rows."""

import os
import runpy
import sys

import bench
import pytest
from forked_runs import Forked


@pytest.mark.slow
@pytest.mark.parametrize("script", bench.scripts(), ids=lambda path: path.stem)
def test_a_benchmark_runs_at_tiny_sizes(script, tmp_path):
    def run():
        os.chdir(tmp_path)  # no peers' environment here
        sys.argv = [str(script), "--smoke", "--out", str(tmp_path / "out")]
        runpy.run_path(str(script), run_name="__main__")

    # in a fork of this process, which has imported everything
    process = Forked(run, tmp_path / "log")
    assert process.wait(180) == 0, process.text[-3000:]
    lines = (tmp_path / f"out/{script.stem}.csv").read_text().splitlines()
    assert lines[0] == "what,against,unit,ours,peer,ratio,low,high,aim"


def test_the_table_replaces_the_one_between_the_marks():
    marked = bench.with_table("above\n\n" + "\nold\n".join(bench.MARKS) + "\n\nbelow\n", "new")
    assert marked == f"above\n\n{bench.MARKS[0]}\n\nnew\n\n{bench.MARKS[1]}\n\nbelow\n"
    assert bench.with_table(marked, "new") == marked


def test_the_machine_is_described():
    assert " cores, " in bench.machine()
    assert "torch 2." in bench.machine()


def test_a_script_that_fails_is_named_and_ends_with_an_error(tmp_path, capfd, monkeypatch):
    (tmp_path / "good.py").write_text(
        "import argparse\nfrom pathlib import Path\nfrom paired import Row, write_rows\n"
        "write_rows(Path('out/good.csv'), [Row('a', 'b', 'MB', 1.0, 2.0, 0.5, 0.5, 0.5)])\n"
    )
    (tmp_path / "bad.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(bench.FOLDER))
    monkeypatch.setattr(bench, "scripts", lambda: [tmp_path / "bad.py", tmp_path / "good.py"])
    with pytest.raises(SystemExit):
        bench.main(["--out", "out", "--smoke"])
    told = capfd.readouterr()
    assert "bad.py failed (exit status 1): its rows are missing" in told.err
    assert "| a | b | 1 MB | 2 MB | 0.50 (0.50 to 0.50) |  |  |" in told.out
