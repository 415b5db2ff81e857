"""What the terminal shows: a table a run and target, and what to know about them."""

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from riskft.validity.predictors import RANK
from riskft.validity.table import ALL, RunResult, ValidityRow


def shown(rows: Sequence[ValidityRow]) -> list[ValidityRow]:
    """Returns the rows over all seeds of the runs that have several, and those of the others' only seed."""
    several = {row.run for row in rows if row.seed == ALL}
    return [row for row in rows if row.seed == ALL or row.run not in several]


def target_table(rows: Sequence[ValidityRow]) -> Table:
    """Returns the rows of one run and target for the terminal, narrow enough for 80 columns."""
    first = rows[0]
    seed = "all seeds" if first.seed == ALL else f"seed {first.seed}"
    title = (
        f"{first.run}, {seed}: {first.target}, {percent(first.prevalence)} of the voxels, "
        f"pooled {percent(first.pooled_prevalence)} ({first.cases} cases)"
    )
    result = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    result.add_column("predictor", no_wrap=True)
    for name in ("AUROC", "95 %", "pooled", "AP", "95 %", "pooled"):
        result.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.predictor,
            *(number(row.auroc), span(row.low, row.high), number(row.pooled_auroc)),
            *(number(row.ap), span(row.ap_low, row.ap_high), number(row.pooled_ap)),
        )
    return result


def notes(rows: Sequence[ValidityRow], results: Sequence[RunResult]) -> list[str]:
    """Says what the tables leave out, and how much negative transfer there is."""
    lines = []
    for title in dict.fromkeys(row.run for row in rows):
        own = [row for row in rows if row.run == title]
        group = [result for result in results if result.run.title == title]
        entries = sum(len(result.cases) for result in group)
        if own[0].interval_over != "-":
            lines.append(f"{title}: intervals over {own[0].interval_over}")
        lines += [
            f"{title}, {target}: {unscored} of {entries} cases have no score, for none or all of their voxels are such"
            for target, unscored in {row.target: row.unscored for row in own}.items()
            if unscored
        ]
        if all(row.predictor != RANK for row in own):
            lines.append(f"{title}: no '{RANK}', for the training cases' hardness is not in the risk store any more")
        every = [volumes for result in group for volumes in result.volumes.values()]
        negative, positive = (
            float(np.mean([sum(getattr(volume, name) for volume in volumes[1:]) for volumes in every]))
            for name in ("negative_transfer_ml", "positive_transfer_ml")
        )
        lines.append(
            f"{title}: in the foreground {negative:.3g} ml a case of negative transfer (right from scratch, wrong "
            f"fine-tuned), {positive:.3g} ml of positive"
        )
    return lines


def number(value: float) -> str:
    """Returns a score with three digits after the point."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def span(low: float, high: float) -> str:
    """Returns an interval."""
    return "-" if math.isnan(low) else f"{low:.3f}-{high:.3f}"


def percent(share: float) -> str:
    """Returns a share in percent."""
    return "-" if math.isnan(share) else f"{100 * share:.3g} %"
