"""The tables of a comparison as CSV and in W&B."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from riskft.analysis.comparison import Comparison, ComparisonRow
from riskft.analysis.pairs import Unpaired
from riskft.analysis.runs import Metric, RunScores
from riskft.files import csv_text

CASE_COLUMNS = ("study", "method", "seed", "subject", "class_name")  #: Columns of ``case_rows`` before the metric's.


def table_csv(comparison: Comparison) -> str:
    """Returns all rows as CSV, with the metric and its unit."""
    columns = [field.name for field in fields(ComparisonRow)]
    return csv_text(
        ["metric", "unit", *columns],
        [[comparison.metric, comparison.unit.unit, *astuple(row)] for row in comparison.rows],
    )


def cases_csv(runs: Sequence[RunScores], metric: Metric) -> str:
    """Returns all runs' cases as CSV, with the metric as ``riskft test`` wrote it."""
    return csv_text([*CASE_COLUMNS, metric], case_rows(runs))


def case_rows(runs: Sequence[RunScores]) -> list[list[object]]:
    """Returns one row per run, case and class."""
    return [[run.study, run.method, run.seed, *key, value] for run in runs for key, value in run.scores.items()]


def unpaired_csv(comparison: Comparison) -> str:
    """Returns unpaired runs, cases and classes as CSV."""
    return csv_text([field.name for field in fields(Unpaired)], [astuple(item) for item in comparison.unpaired])


def log_tables(folder: Path, runs: Sequence[RunScores], comparison: Comparison) -> None:
    """Logs the results, the cases and each difference to an offline W&B run in the folder."""
    import wandb

    results = [list(astuple(row)) for row in comparison.rows]
    tables = {
        "compare/table": wandb.Table(columns=[field.name for field in fields(ComparisonRow)], data=results),
        "compare/cases": wandb.Table(columns=[*CASE_COLUMNS, comparison.metric], data=case_rows(runs)),
    }
    with offline_run(folder, "compare", comparison.metric) as run:
        run.log(tables)
        for row in comparison.rows:
            if not row.is_baseline:
                run.summary[f"{row.study}/{row.method}/{row.class_name}/difference"] = row.difference


def offline_run(folder: Path, job: str, name: str) -> Any:
    """Starts an offline W&B run in a folder, for the results of a command; use it as a context."""
    import wandb

    settings = wandb.Settings(console="off", silent=True)
    return wandb.init(
        project="riskft", job_type=job, name=f"{job} {name}", dir=str(folder), mode="offline", settings=settings
    )
