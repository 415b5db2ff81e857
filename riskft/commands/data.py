"""``riskft data``: writes a phantom cohort, or checks a data set."""

from collections.abc import Sequence
from pathlib import Path

from riskft.arguments.parser import CommandParser
from riskft.commands.imports import quick_imports


def main(arguments: Sequence[str]) -> None:
    """Runs ``riskft data phantom`` or ``riskft data check``, which exits with 1 if it finds a fault."""
    if list(arguments[:1]) == ["check"] and not {"-h", "--help"} & set(arguments):
        _check(arguments[1:])
        return
    phantom = CommandParser(description="Write a cohort of phantoms with real anatomy, in FeTS and iSeg layout.")
    phantom.add_argument("out", type=Path, help="folder to write")
    phantom.add_argument("--subjects", type=int, default=14, help="number of subjects")
    phantom.add_argument("--seed", type=int, default=0, help="seed; the same seed gives the same cohort")
    phantom.add_argument("--spacing", type=float, default=2.0, help="voxel size in mm")
    phantom.add_argument("--overwrite", type=bool, default=False, help="replace a cohort made with other options")
    checker = CommandParser(description="Read every case of a data set, print a table and all faults; exit 1 if any.")
    checker.add_argument("--config", help="a config as for fit; its other options may be given as well")
    parser = CommandParser(prog="riskft data", description="Write a phantom cohort, or check a data set.")
    commands = parser.add_subcommands()
    commands.add_subcommand("phantom", phantom)
    commands.add_subcommand("check", checker)
    options = parser.parse_args(list(arguments))
    from rich.console import Console

    from riskft.phantom import write_cohort
    from riskft.run.places import refuse_unwritable

    refuse_unwritable({"out": options.phantom.out})
    paths = write_cohort(**options.phantom.as_dict())
    Console().print(f"Cohort: {paths.fets} (FeTS layout), {paths.iseg} (iSeg layout)", soft_wrap=True)


def _check(arguments: Sequence[str]) -> None:
    from rich.console import Console

    with quick_imports():
        from riskft.build import build_data

    data = build_data(arguments)
    report = data.check(data.cases())
    report.render(Console())
    if report.faults:
        raise SystemExit(1)
