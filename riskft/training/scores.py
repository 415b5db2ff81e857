"""What becomes of the cases' scores: means in the loggers, a table in the run folder and in W&B."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer

from riskft.distributed import gather_objects
from riskft.errors import InputError
from riskft.evaluation.metrics import CaseScore, class_means, overall
from riskft.files import keep_old, write_text
from riskft.training.run_folder import run_folder
from riskft.training.tables import cases_csv, log_cases


def gather_scores(scores: Sequence[CaseScore], stage: str, names: Sequence[str]) -> list[CaseScore]:
    """Returns the scores of all ranks, by subject and then class.

    Args:
        scores: Those of this rank.
        stage: ``val`` or ``test``.
        names: Classes or regions in their order.
    """
    parts = gather_objects(scores, f"scores of `{stage}`")
    # by case and class, because a rank without a share of its own repeats another's case
    gathered = {(score.subject, score.class_name): score for part in parts for score in part}
    return sorted(gathered.values(), key=lambda score: (score.subject, names.index(score.class_name)))


def log_means(module: LightningModule, stage: str, scores: Sequence[CaseScore]) -> None:
    """Logs each class's mean over the cases, how many these are, and the mean over classes.

    Args:
        module: Where ``self.log`` is called.
        stage: ``val`` or ``test``.
        scores: Those of all ranks, the same on each: nothing is left to reduce.
    """
    for metric in ("dice", "hd95_mm"):
        means = class_means(scores, metric)
        if metric != "dice" and not any(mean.count for mean in means.values()):
            continue
        # NaN where no case has a value: a checkpoint that monitors it takes that for the worst
        module.log(f"{stage}/{metric}", overall(means), prog_bar=metric == "dice", rank_zero_only=False)
        for name, mean in means.items():
            if mean.count:
                module.log(f"{stage}/{metric}/{name}", mean.value)
                module.log(f"{stage}/n/{name}", float(mean.count))


def keep_cases(trainer: Trainer, scores: Sequence[CaseScore]) -> None:
    """Writes ``cases.csv`` into the run folder, beside an earlier one with other scores, and logs it to W&B.

    There each row has the run's study, method and seed too, so that the tables of a project can be joined and exported.
    """
    folder = run_folder(trainer)
    keep_old(folder.cases, unless=cases_csv(scores))
    write_text(folder.cases, cases_csv(scores))
    try:
        name = folder.name()
    except InputError:  # made in Python, without a config
        name = ("", folder.path.name, 0)
    log_cases(trainer, scores, "test/cases", name)
