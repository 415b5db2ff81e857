"""Tables of the report (the text of each cell, and the number to sort it by) and of the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from riskft.analysis.comparison import Comparison, ComparisonRow, MetricUnit
from riskft.analysis.runs import FoundRuns
from riskft.errors import first_few


@dataclass(frozen=True)
class Cell:
    """A cell."""

    text: str  #: The text shown.
    value: float | None = None  #: The number to sort by, NaN if there is none; None to sort by the text.
    side: str = ""  #: ``better`` or ``worse`` to mark it, otherwise empty.

    @property
    def key(self) -> str | None:
        """The number as text for the page; empty for NaN."""
        return None if self.value is None else "" if math.isnan(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class ReportTable:
    """A sortable table."""

    caption: str
    headers: Sequence[str]  #: One per column.
    lines: Sequence[tuple[Sequence[Cell], bool]]  #: The cells of each row, and whether the row is a baseline's.
    texts: int  #: Number of leading columns that hold text.


def number(value: float, unit: MetricUnit, signed: bool = False) -> str:
    """Returns a mean or a difference as text, ``-`` for NaN."""
    digits = 1 if unit.scale > 1 else 2
    return "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def interval(row: ComparisonRow, unit: MetricUnit, noted: bool = True) -> str:
    """Returns the interval as text, with a note if it is not over seeds and cases."""
    if math.isnan(row.low):
        return "-"
    note = f" ({row.interval_over})" if noted and row.interval_over != "seeds and cases" else ""
    return f"{number(row.low, unit, True)} to {number(row.high, unit, True)}{note}"


def common_scope(rows: Sequence[ComparisonRow]) -> str:
    """Returns a note on what all intervals are over; empty if they differ."""
    scopes = {row.interval_over for row in rows if row.interval_over != "-"}
    return f"; intervals over {scopes.pop()}" if len(scopes) == 1 else ""


def p_value(value: float) -> str:
    """Returns a p-value as text."""
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def outcomes(row: ComparisonRow) -> str:
    """Returns wins/losses/ties as text."""
    return "-" if row.is_baseline else f"{row.wins}/{row.losses}/{row.ties}"


HEADERS = ("class", "method", "baseline", "mean", "difference", "95 % interval", "p", "p (Holm)", "cases", "seeds",
           "wins / losses / ties")  # fmt: skip
TEXTS = 3


def result_table(rows: Sequence[ComparisonRow], unit: MetricUnit, caption: str) -> ReportTable:
    """Returns the table of a study's rows; differences whose interval excludes 0 are marked."""
    lines = []
    scope = common_scope(rows)
    for row in rows:
        cells = [
            Cell(row.class_name),
            Cell(row.method),
            Cell("-" if row.is_baseline else row.baseline),
            Cell(number(row.mean, unit), row.mean),
            Cell(number(row.difference, unit, True), row.difference, _side(row, unit)),
            Cell(interval(row, unit, noted=not scope), row.low),
            Cell(p_value(row.p), row.p),
            Cell(p_value(row.p_holm), row.p_holm),
            Cell(str(row.cases), row.cases),
            Cell(str(row.seeds), row.seeds),
            Cell(outcomes(row), math.nan if row.is_baseline else row.wins),
        ]
        lines.append((cells, row.is_baseline))
    return ReportTable(f"{caption}{scope}", HEADERS, lines, TEXTS)


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> ReportTable:
    """Returns a table of text."""
    lines = [([Cell(str(value)) for value in row], False) for row in rows]
    return ReportTable(caption, headers, lines, len(headers))


def _side(row: ComparisonRow, unit: MetricUnit) -> str:
    """Returns ``better`` or ``worse`` if the interval excludes 0, otherwise nothing."""
    low, high = (row.low, row.high) if unit.higher_is_better else (-row.high, -row.low)
    return "better" if low > 0 else "worse" if high < 0 else ""


LISTED = 20


def study_table(study: str, comparison: Comparison) -> Table:
    """Returns a study's rows for the terminal, one section per class, narrow enough for 80 columns."""
    unit = comparison.unit
    rows = [row for row in comparison.rows if row.study == study]
    scope = common_scope(rows)
    title = f"{study}: {unit.title}, {unit.unit}, paired differences from the baseline{scope}"
    result = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("method", overflow="fold")
    for name in ("mean", "diff.", "95 % interval", "p Holm", "cases", "seeds", "w/l/t"):
        result.add_column(name, justify="right", no_wrap=bool(scope) or name != "95 % interval")
    for class_name in dict.fromkeys(row.class_name for row in rows):
        result.add_section()
        result.add_row(Text(class_name, style="bold"))
        for row in rows:
            if row.class_name == class_name:
                result.add_row(
                    Text(row.method),
                    number(row.mean, unit),
                    number(row.difference, unit, signed=True),
                    interval(row, unit, noted=not scope),
                    p_value(row.p_holm),
                    str(row.cases),
                    str(row.seeds),
                    outcomes(row),
                )
    return result


def say_left_out(console: Console, found: FoundRuns, comparison: Comparison) -> None:
    """Prints which runs are not tested, and what could not be paired."""
    lines = [f"{folder}: not tested, left out" for folder in found.untested]
    lines += first_few((f"not paired: {item}" for item in comparison.unpaired), LISTED)
    if len(comparison.unpaired) > LISTED:
        lines[-1] += ", all in unpaired.csv and in the report"
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
