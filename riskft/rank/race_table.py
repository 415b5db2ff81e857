"""A race as a table in the terminal."""

import math

from rich import box
from rich.table import Table
from rich.text import Text

from riskft.rank.decision import fraction_text
from riskft.rank.race_result import RaceResult
from riskft.training.plan import in_words


def race_table(result: RaceResult) -> Table:
    """Returns a table with one row per candidate: Dice at each rung, what it cost, and what became of it."""
    cases = f"on {result.folds} groups of cases left out in turn" if result.folds else "on the validation cases"
    title = f"The race: mean validation Dice at each rung, {cases}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("candidate", overflow="fold")
    rungs = sorted({at for course in result.courses for at in course.marks})
    for at in rungs:
        table.add_column(fraction_text(at), justify="right")
    table.add_column("fine-tunings", justify="right")
    table.add_column("time", justify="right")
    table.add_column("outcome", overflow="fold")
    for course in result.courses:
        dice = [course.dice(at) for at in rungs]
        table.add_row(
            Text(course.name),
            *("" if math.isnan(value) else f"{value:.3f}" for value in dice),
            f"{course.cost:.2f}",
            in_words(course.seconds) if course.seconds else "",
            Text(course.outcome),  # a failure's reason may look like markup
            style="bold" if course.outcome == "won" else None,
        )
    return table
