"""Tables of cases, as CSV and in W&B."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

from lightning.pytorch import Trainer

from riskft.evaluation.metrics import CaseScore
from riskft.files import csv_text
from riskft.source.transfer import AdaptationReport
from riskft.training.loggers import wandb_run
from riskft.training.of_trainer import run_folder

COLUMNS = tuple(field.name for field in fields(CaseScore))


def cases_csv(scores: Sequence[CaseScore]) -> str:
    """Returns one row per case and class: subject, class_name, dice, hd95_mm, voxels_true, voxels_predicted."""
    return csv_text(COLUMNS, map(astuple, scores))


def log_cases(trainer: Trainer, scores: Sequence[CaseScore], key: str, run: tuple[str, str, int]) -> None:
    """Logs the scores, with the run's study, method and seed, as a ``wandb.Table`` if the trainer has a W&B logger."""
    log_table(trainer, key, ("study", "method", "seed", *COLUMNS), [(*run, *astuple(score)) for score in scores])


def keep_adaptation(trainer: Trainer, report: AdaptationReport) -> None:
    """Writes the adaptation report of the source's parameters into the run folder and logs it."""
    report.write(run_folder(trainer).adaptation)
    log_table(trainer, "adaptation", ("parameter", "shape", "status"), report.rows)


def log_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Logs rows as a ``wandb.Table`` if the trainer has a W&B logger."""
    if (run := wandb_run(trainer)) is not None:
        import wandb

        run.log({key: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
