"""``riskft compare``: paired statistics of runs, and a report."""

from collections.abc import Sequence
from pathlib import Path

from riskft.analysis.runs import Metric
from riskft.arguments.parser import CommandParser
from riskft.errors import InputError
from riskft.files import write_text
from riskft.run.places import refuse_unwritable

DESCRIPTION = """Compare methods on the same test cases, paired by case, class and seed.

Prints a table and writes table.csv, cases.csv (all runs), unpaired.csv and report.html, a single file with figures,
learning curves, heatmaps and a viewer of risk maps."""

NAMES = ("table.csv", "cases.csv", "unpaired.csv", "report.html")


def main(arguments: Sequence[str]) -> None:
    """Runs ``riskft compare``; raises InputError if runs cannot be compared, or the report would overwrite another."""
    parser = CommandParser(prog="riskft compare", description=DESCRIPTION)
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        help="folders of tested runs, or folders above them; or tables: `test/cases` of a W&B project as CSV or JSON, "
        "or the cases.csv of an earlier report",
    )
    parser.add_argument("--baseline", default="vanilla", help="the method to compare the others with")
    parser.add_argument("--metric", type=Metric, default="dice", help="dice or hd95_mm")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    parser.add_argument("--viewer-cases", type=int, default=3, help="cases in the viewer, up to 5 MB each; 0 for none")
    parser.add_argument("--wandb", type=bool, default=False, help="log the tables to an offline W&B run in --out")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace a report")
    options = parser.parse_args(list(arguments))
    if options.viewer_cases < 0:
        raise InputError(f"--viewer-cases is {options.viewer_cases}, expected 0 or more.")
    refuse_unwritable({"--out": options.out})
    if (
        there := [str(options.out / name) for name in NAMES if (options.out / name).exists()]
    ) and not options.overwrite:
        raise InputError("A report already exists. Add --overwrite true, or choose another --out:", there)
    from rich.console import Console

    from riskft.analysis.comparison import compare
    from riskft.analysis.output import cases_csv, log_tables, table_csv, unpaired_csv
    from riskft.compare.exports import find_runs_and_exports
    from riskft.compare.page import report_html
    from riskft.compare.tables import say_left_out, study_table

    found = find_runs_and_exports(options.runs, options.metric)
    comparison = compare(found.runs, options.metric, options.baseline)
    contents = (
        table_csv(comparison),
        cases_csv(found.runs, options.metric),
        unpaired_csv(comparison),
        report_html(found, comparison, options.viewer_cases),
    )
    for name, content in zip(NAMES, contents, strict=True):
        write_text(options.out / name, content)
    if options.wandb:
        log_tables(options.out, found.runs, comparison)
    console = Console()
    for study in dict.fromkeys(row.study for row in comparison.rows):
        console.print(study_table(study, comparison))
    for note in found.notes:
        console.print(f"Note: {note}", soft_wrap=True, markup=False, highlight=False)
    say_left_out(console, found, comparison)
    console.print(f"Report: {options.out / 'report.html'}", soft_wrap=True, markup=False, highlight=False)
