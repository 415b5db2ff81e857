"""Reads runs from tables instead of folders: W&B exports, and the cases.csv of ``riskft compare``.

W&B keeps a table ``test/cases`` of each run, with study, method and seed. A table panel of a project exports the tables
of all runs as one CSV; ``wandb artifact get`` and offline runs have them as ``*.table.json``.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.analysis.runs import FoundRuns, Metric, RunScores, ScoreKey, doubles, find_runs
from riskft.errors import InputError, refuse
from riskft.files import read_json, read_rows

ADVICE = "Expected a CSV or JSON table of W&B's `test/cases`, or a cases.csv of `riskft compare`."


def find_runs_and_exports(paths: Sequence[Path], metric: Metric) -> FoundRuns:
    """Reads runs from folders (``find_runs``) and tables (``read_export``); raises InputError if two share a name."""
    folders = [path for path in paths if not path.is_file()]
    found = find_runs(folders, metric) if folders else FoundRuns([], [])
    runs = [*found.runs, *(run for path in paths if path.is_file() for run in read_export(path, metric))]
    refuse("These runs cannot be compared:", doubles(runs))
    return FoundRuns(sorted(runs, key=lambda run: (run.study, run.method, run.seed)), found.untested, found.notes)


def read_export(path: Path, metric: Metric) -> list[RunScores]:
    """Reads the runs of a table; raises InputError if it lacks a column or a number, or lists a case twice."""
    rows = list(_rows(path))
    missing = {"study", "method", "seed", "subject", "class_name", metric} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path}: has no column {', '.join(sorted(missing))}. {ADVICE}")
    found: dict[tuple[str, str, int], dict[ScoreKey, float]] = {}
    for number, row in enumerate(rows, 1):
        try:
            run = (str(row["study"]), str(row["method"]), int(row["seed"]))
            value = row[metric]
            score = float("nan") if value in ("", None) else float(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: row {number}: {error}. {ADVICE}") from error
        case = (str(row["subject"]), str(row["class_name"]))
        if case in found.setdefault(run, {}):
            raise InputError(f"{path}: row {number}: {' '.join(map(str, (*run, *case)))} is listed twice.")
        found[run][case] = score
    return [RunScores(path, *run, scores) for run, scores in found.items()]


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        if path.suffix != ".json":
            return read_rows(path)
        content = read_json(path)
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {ADVICE}") from error
