"""Finds tested runs, reads their scores, and finds out from their records what they started from."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from riskft.errors import InputError, refuse
from riskft.files import read_rows
from riskft.run.folder import SEED_FOLDER, RunFolder
from riskft.run.record import Start

Metric = Literal["dice", "hd95_mm"]
ScoreKey = tuple[str, str]


def started_from(folder: Path) -> Start | None:
    """Returns whether a run started from a source's weights or from scratch; None if unknown.

    ``record.json`` in the run folder takes precedence over ``config.yaml``, which only says what was asked for.
    """
    run = RunFolder(folder)
    if (record := run.read_record()) is not None:
        return record.started_from
    model = run.read_config().get("model")
    source: Any = model.get("source") if isinstance(model, dict) else None
    if not isinstance(source, dict) or "checkpoint" not in source:
        return None
    return "source" if source["checkpoint"] and source.get("load") != "none" else "scratch"


def misnamed(runs: Iterable[tuple[str, str, Path]]) -> list[str]:
    """Returns notes on methods, given as (study, method, run folder), whose name misleads or whose starts differ."""
    methods: dict[tuple[str, str], dict[Start, list[Path]]] = {}
    for study, method, folder in runs:
        if (start := started_from(folder)) is not None:
            methods.setdefault((study, method), {}).setdefault(start, []).append(folder)
    lines = []
    for (study, method), starts in sorted(methods.items()):
        name, tuned, scratch = f"{study}/{method}", starts.get("source", []), starts.get("scratch", [])
        if tuned and scratch:
            lines.append(f"{name}: {tuned[0]} started from a source's weights, {scratch[0]} from scratch")
        elif tuned and _claims_scratch(method):
            lines.append(f"{name}: is called scratch, but {tuned[0]} started from a source's weights")
        elif scratch and not _claims_scratch(method):
            lines.append(f"{name}: was trained from scratch, without a source's weights")
    return lines


def _claims_scratch(method: str) -> bool:
    return "scratch" in method.partition(",")[0].lower()


@dataclass(frozen=True)
class RunScores:
    """The scores of one run."""

    folder: Path  #: The run folder, or the table that the scores were read from.
    study: str
    method: str  #: The training method.
    seed: int
    #: The metric by subject and class, in the file's order; NaN where a case has no value.
    scores: dict[ScoreKey, float]


@dataclass(frozen=True)
class FoundRuns:
    """The runs in some folders."""

    runs: list[RunScores]  #: Tested runs by study, method and seed.
    untested: list[Path]  #: Run folders without a ``cases.csv``.
    notes: list[str] = field(default_factory=list)  #: Methods whose names do not fit their runs.


def find_runs(paths: Sequence[Path], metric: Metric) -> FoundRuns:
    """Reads a metric of all tested runs in folders, or in folders below them.

    A run folder holds ``config.yaml`` and ``cases.csv``. A copy without the config counts too if its folder is named
    ``<study>/<method>/seed=<n>``. Raises InputError if a folder is missing or holds no run, a file cannot be read, or
    two runs have the same study, method and seed.
    """
    unique = run_folders(paths)
    problems = []
    tested = [folder for folder in unique if RunFolder(folder).cases.is_file()]
    runs = []
    for folder in tested:
        try:
            runs.append(_read_run(folder, metric))
        except InputError as error:
            problems.append(str(error))
    problems += doubles(runs)
    refuse("These runs cannot be compared:", problems)
    if not runs:
        raise InputError("None of the runs has been tested. Run `riskft test --config <run>/config.yaml` for each:",
                         [str(folder) for folder in unique])  # fmt: skip
    runs.sort(key=lambda run: (run.study, run.method, run.seed))
    notes = misnamed((run.study, run.method, run.folder) for run in runs)
    return FoundRuns(runs, [folder for folder in unique if folder not in tested], notes)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Returns the run folders at and below paths, once each; raises InputError if one is missing or holds no run."""
    folders: list[Path] = []
    problems = []
    for path in paths:
        inside = list(_run_folders(path))
        if not inside:
            problems.append(f"{path}: {'it holds no run' if path.is_dir() else 'there is no such folder'}")
        folders += inside
    refuse("Give folders of runs (with config.yaml and, after `riskft test`, cases.csv):", problems)
    # a folder may be given twice: by itself and by one above it
    return list({folder.resolve(): folder for folder in folders}.values())


def read_cases(path: Path, metric: Metric = "dice") -> dict[ScoreKey, float]:
    """Reads a metric of a ``cases.csv`` by subject and class; raises InputError if it is missing or not a number."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Run `riskft test` for this run first.")
    rows = read_rows(path)
    missing = {"subject", "class_name", metric} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path}: has no {', '.join(sorted(missing))}, expected a cases.csv of `riskft test`.")
    try:
        return {(row["subject"], row["class_name"]): float(row[metric]) for row in rows}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: {metric} is not a number ({error}), expected a cases.csv of `riskft test`."
        ) from error


def _run_folders(path: Path) -> Iterator[Path]:
    """Yields the run folders at and below a path, without searching inside run folders."""
    for folder, children, files in os.walk(path):
        run = RunFolder(Path(folder))
        has_cases, has_config = run.cases.name in files, run.config.name in files
        tested = has_cases and (has_config or SEED_FOLDER.search(run.path.name))
        if tested or (has_config and "run" in run.read_config()):
            yield run.path
            children.clear()
        children[:] = sorted(child for child in children if not child.startswith("."))


def _read_run(folder: Path, metric: Metric) -> RunScores:
    run = RunFolder(folder)
    return RunScores(folder, *run.name(), read_cases(run.cases, metric))


def doubles(runs: Iterable[RunScores]) -> list[str]:
    """Returns one line per pair of runs with the same study, method and seed."""
    first: dict[tuple[str, str, int], Path] = {}
    problems = []
    for run in runs:
        if (other := first.setdefault((run.study, run.method, run.seed), run.folder)) != run.folder:
            name = f"study {run.study}, method {run.method}, seed {run.seed}"
            problems.append(f"{other} and {run.folder} are both {name}. Leave one out, or set run.study or run.method.")
    return problems
