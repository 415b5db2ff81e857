"""Logs a ranking to Weights & Biases."""

import csv
import io
from pathlib import Path
from typing import Any

from riskft.analysis.output import offline_run
from riskft.rank.race_result import COLUMNS, RaceResult


def log_ranking(out: Path, scores: str, result: RaceResult | None) -> None:
    """Logs a ranking to an offline W&B run in its folder.

    Args:
        out: The folder, with ``race.png`` if there was a race.
        scores: The content of ``rank.csv``.
        result: The race, if there was one.
    """
    import wandb

    columns, *rows = csv.reader(io.StringIO(scores))
    content: dict[str, Any] = {"rank/scores": wandb.Table(columns=columns, data=rows)}
    if result is not None:
        content["rank/race"] = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in result.rows()])
        content["rank/curves"] = wandb.Image(str(out / "race.png"))
    with offline_run(out, "rank", out.name) as run:
        run.log(content)
        if result is not None:
            run.summary.update({"winner": result.decision.winner, "fine_tunings": result.cost})
