"""Gathers and logs the scores of cases, and writes ``cases.csv``."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer

from riskft.distributed import gather_objects
from riskft.errors import InputError
from riskft.evaluation.metrics import CaseScore, class_means, overall
from riskft.files import keep_old, write_text
from riskft.training.of_trainer import run_folder
from riskft.training.tables import cases_csv, log_cases


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
