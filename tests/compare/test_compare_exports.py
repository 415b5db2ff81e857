"""Runs from tables: W&B's exports and the cases.csv of a report."""

import json
import math

import pytest
from compare_study import write_run

from riskft.commands.compare import main
from riskft.compare.exports import find_runs_and_exports, read_export
from riskft.errors import InputError

COLUMNS = ["study", "method", "seed", "subject", "class_name", "dice", "hd95_mm"]
ROWS = [
    ["s", "vanilla", 0, "a", "core", 0.5, 3.0],
    ["s", "vanilla", 0, "b", "core", 0.7, None],
    ["s", "riskft", 1, "a", "core", 0.6, 2.0],
]


def as_json(path, rows=ROWS, columns=COLUMNS):
    path.write_text(json.dumps({"columns": columns, "data": rows}))
    return path


def as_csv(path, rows=ROWS, columns=COLUMNS):
    lines = [",".join("" if value is None else str(value) for value in row) for row in [columns, *rows]]
    path.write_text("\ufeff" + "\n".join(lines) + "\n")  # as spreadsheets write it
    return path


@pytest.mark.parametrize("write", [as_json, as_csv])
def test_a_table_holds_runs(tmp_path, write):
    path = write(tmp_path / f"cases.table.{write.__name__[3:]}")
    first, second = read_export(path, "dice")
    assert (first.study, first.method, first.seed) == ("s", "vanilla", 0)
    assert first.scores == {("a", "core"): 0.5, ("b", "core"): 0.7}
    assert (second.method, second.seed, second.scores) == ("riskft", 1, {("a", "core"): 0.6})
    distances = read_export(path, "hd95_mm")[0].scores
    assert distances["a", "core"] == 3
    assert math.isnan(distances["b", "core"])


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (ROWS, [*COLUMNS[:5], "score", "x"], "has no column dice"),
        ([], COLUMNS, "has no column"),
        ([*ROWS, ROWS[0]], COLUMNS, "row 4: s vanilla 0 a core is listed twice"),
        ([["s", "vanilla", "zero", "a", "core", 0.5, 3.0]], COLUMNS, "row 1: invalid literal"),
        ([["s", "vanilla", 0, "a", "core", "much", 3.0]], COLUMNS, "row 1: could not convert"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, rows, columns, message):
    for path in (as_json(tmp_path / "t.json", rows, columns), as_csv(tmp_path / "t.csv", rows, columns)):
        with pytest.raises(InputError, match=message) as caught:
            read_export(path, "dice")
        assert str(path) in str(caught.value)


def test_no_json(tmp_path):
    (tmp_path / "t.json").write_text("subject,dice")
    with pytest.raises(InputError, match="cannot be read"):
        read_export(tmp_path / "t.json", "dice")


def test_a_table_beside_folders_and_the_report_s_own_cases(tmp_path):
    folder = write_run(tmp_path / "run", study="s", method="vanilla", seed=1, scores={("a", "core"): 0.4})
    table = as_csv(tmp_path / "export.csv")
    found = find_runs_and_exports([folder, table], "dice")
    assert [(run.method, run.seed) for run in found.runs] == [("riskft", 1), ("vanilla", 0), ("vanilla", 1)]
    main([str(folder), str(table), "--out", str(tmp_path / "report"), "--viewer-cases", "0"])
    again = find_runs_and_exports([tmp_path / "report/cases.csv"], "dice")
    assert [run.scores for run in again.runs] == [run.scores for run in found.runs]
    with pytest.raises(InputError, match="are both study s, method vanilla, seed 1"):
        find_runs_and_exports([folder, tmp_path / "report/cases.csv"], "dice")
