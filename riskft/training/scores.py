"""Gathers and logs the scores of cases, and writes tables into the run folder and W&B."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from riskft.distributed import gather_objects
from riskft.errors import InputError
from riskft.evaluation.metrics import CaseScore, class_means, overall
from riskft.files import csv_text, keep_old, write_text
from riskft.source.transfer import AdaptationReport
from riskft.training.loggers import wandb_run
from riskft.training.of_trainer import run_folder

COLUMNS = tuple(field.name for field in fields(CaseScore))


def gather_scores(scores: Sequence[CaseScore], stage: str, names: Sequence[str]) -> list[CaseScore]:
    """Returns the scores of all ranks in a stage, sorted by subject and by the order of the classes or regions."""
    parts = gather_objects(scores, f"scores of `{stage}`")
    # keyed, because a rank without cases of its own repeats another rank's case
    gathered = {(score.subject, score.class_name): score for part in parts for score in part}
    return sorted(gathered.values(), key=lambda score: (score.subject, names.index(score.class_name)))


def log_means(module: LightningModule, stage: str, scores: Sequence[CaseScore]) -> None:
    """Logs each class's mean over cases and number of cases, and the mean over classes.

    The scores are those of all ranks, equal on each, so that logging need not reduce them.
    """
    for metric in ("dice", "hd95_mm"):
        means = class_means(scores, metric)
        if metric != "dice" and not any(mean.count for mean in means.values()):
            continue
        # NaN if no case has a value; a checkpoint that monitors it treats NaN as the worst
        module.log(f"{stage}/{metric}", overall(means), prog_bar=metric == "dice", rank_zero_only=False)
        for name, mean in means.items():
            if mean.count:
                module.log(f"{stage}/{metric}/{name}", mean.value)
                module.log(f"{stage}/n/{name}", float(mean.count))


def keep_cases(trainer: Trainer, scores: Sequence[CaseScore]) -> None:
    """Writes ``cases.csv`` into the run folder, keeping an older one with other scores, and logs it to W&B.

    In W&B each row also has the run's study, method and seed, so that you can join the tables of a project.
    """
    folder = run_folder(trainer)
    keep_old(folder.cases, unless=cases_csv(scores))
    write_text(folder.cases, cases_csv(scores))
    try:
        name = folder.name()
    except InputError:  # made in Python, without a config
        name = ("", folder.path.name, 0)
    log_cases(trainer, scores, "test/cases", name)


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
