"""What is shown of the scores: one table per run and target, notes on them, and ROC curves."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from riskft.plots.figure import COLOURS, new_figure
from riskft.validity.predictors import RANK
from riskft.validity.scores import NEGATIVE_TRANSFER, RATES
from riskft.validity.table import ALL, RunResult, ValidityRow

LABEL_FREE = ("source entropy", "EEP entropy")
BLACK = "#333333"  # for the seventh predictor


def shown(rows: Sequence[ValidityRow]) -> list[ValidityRow]:
    """Returns each run's rows over all seeds, or those of its only seed."""
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
    """Returns notes on what the tables leave out and how much negative transfer there is."""
    lines = []
    for title in dict.fromkeys(row.run for row in rows):
        own = [row for row in rows if row.run == title]
        group = [result for result in results if result.run.title == title]
        entries = sum(len(result.cases) for result in group)
        if own[0].interval_over != "-":
            lines.append(f"{title}: intervals over {own[0].interval_over}")
        lines += [
            f"{title}, {target}: {unscored} of {entries} cases have no score: all of their voxels are positive, or none"
            for target, unscored in {row.target: row.unscored for row in own}.items()
            if unscored
        ]
        if all(row.predictor != RANK for row in own):
            lines.append(f"{title}: no '{RANK}', because the risk store no longer has the training cases' hardness")
        every = [volumes for result in group for volumes in result.volumes.values()]
        negative, positive = (
            float(np.mean([sum(getattr(volume, name) for volume in volumes[1:]) for volumes in every]))
            for name in ("negative_transfer_ml", "positive_transfer_ml")
        )
        lines.append(
            f"{title}: mean foreground volume per case: {negative:.3g} ml of negative transfer (only the network from "
            f"scratch is right), {positive:.3g} ml of positive transfer"
        )
    return lines


def number(value: float) -> str:
    """Returns a score with three decimals."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def span(low: float, high: float) -> str:
    """Returns an interval."""
    return "-" if math.isnan(low) else f"{low:.3f}-{high:.3f}"


def percent(share: float) -> str:
    """Returns a share in percent."""
    return "-" if math.isnan(share) else f"{100 * share:.3g} %"


def show(rows: Sequence[ValidityRow], results: Sequence[RunResult], margin: int, out: Path) -> None:
    """Prints a table per run and target, and the notes."""
    console, rows = Console(), shown(rows)
    for name in dict.fromkeys((row.run, row.target) for row in rows):
        console.print(target_table([row for row in rows if (row.run, row.target) == name]))
        console.print()
    where = f"voxels up to {margin} from the foreground" if margin else "all voxels"
    for line in [*notes(rows, results), f"Scored: {where}", f"Results: {out}"]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def roc_figure(results: Sequence[RunResult]) -> Figure:
    """Draws each predictor's ROC curve for negative transfer, pooled over voxels; one axes per run."""
    titles = list(dict.fromkeys(result.run.title for result in results))
    figure = new_figure(5.0 * len(titles), 5.0)
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        group = [result for result in results if result.run.title == title]
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        for place, name in enumerate(group[0].curves):
            curves = np.array([result.curves[name] for result in group if name in result.curves])
            curves = curves[~np.isnan(curves).any(1)]
            if not len(curves):
                continue
            areas = [result.pooled[NEGATIVE_TRANSFER, name].auroc for result in group if name in result.curves]
            axes.plot(
                RATES,
                curves.mean(0),
                "--" if name in LABEL_FREE else "-",
                color=(*COLOURS, BLACK)[place % (len(COLOURS) + 1)],
                label=f"{name} {np.nanmean(areas):.2f}",
            )
        axes.set_xlabel("share of the other voxels")
        axes.set_ylabel("share of the negative-transfer voxels found")
        axes.set_title(f"{title}: AUROC, pooled", fontsize=10, parse_math=False)
        axes.set_aspect("equal")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, loc="lower right")
    return figure
