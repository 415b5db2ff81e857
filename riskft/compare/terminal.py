"""What ``riskft compare`` prints: a table per study, and what was left out."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from riskft.analysis.comparison import Comparison
from riskft.analysis.runs import FoundRuns
from riskft.compare.tables import common_scope, interval, number, outcomes, p_value
from riskft.errors import first_few

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
