"""The command line: ``riskft {fit,validate,test,predict,riskmap,data,convert,sweep,compare,validity,next,rank}``.

Each command imports what it needs when it is chosen: torch and Lightning take seconds.
"""

import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from riskft import __version__
from riskft.arguments.flags import with_values
from riskft.commands.imports import quick_imports
from riskft.commands.interruptions import again, ending_with, go_on, sigterm_raised
from riskft.commands.messages import message
from riskft.compat import hide_warnings
from riskft.distributed import is_first_rank
from riskft.errors import UsageError
from riskft.run.wandb_files import staging_undone

HELP = """usage: riskft COMMAND [OPTIONS]

Transfer risk maps and risk-weighted fine-tuning of segmentation networks.

commands (`riskft COMMAND --help` lists the options of each):
  fit        compute the risk maps and fine-tune
  validate   score the validation cases
  test       score the test cases in the scans' own geometry
  predict    write segmentations in the scans' own geometry
  riskmap    only compute the risk maps
  data       write a phantom cohort to try riskft on, or check a data set for faults
  convert    extract the weights from a checkpoint
  sweep      start many runs from one file, here or on a SLURM cluster
  compare    compare tested runs, paired by case and seed, and write a report
  validity   check on the test cases whether the risk map predicts the errors of fine-tuning
  rank       decide before training which source to fine-tune, or none
  next       choose the scans to annotate next

options:
  -h, --help  show this message
  --version   show the version"""
COMMANDS = ("data", "convert", "compare", "validity", "next")
TRAINER_COMMANDS = ("fit", "validate", "test", "predict", "riskmap")


def main(args: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        args: Command line arguments; by default those of the process.

    Raises:
        SystemExit: With 1 and a message, without a traceback, for bad input, a full disk or a lost process; with 2 for
            a wrong command line; with 130 after Ctrl-C and 143 after SIGTERM.
    """
    arguments = with_values(sys.argv[1:] if args is None else args)
    _set_up_logging()
    with staging_undone(), sigterm_raised(), ending_with(lambda: again(arguments)):
        try:
            _dispatch(arguments)
        except UsageError as error:
            print(f"riskft: {error.args[0]}\n{error.args[1]}", file=sys.stderr)  # noqa: T201
            raise SystemExit(2) from None
        except Exception as error:
            if (reason := message(error)) is None:
                raise
            print(f"riskft: {reason}", file=sys.stderr)  # noqa: T201
            raise SystemExit(1) from None
        finally:
            _finish_wandb()


def _dispatch(arguments: list[str]) -> None:
    name = arguments[0] if arguments else ""
    if name in TRAINER_COMMANDS:
        _run(arguments)
    elif name in COMMANDS:
        import_module(f"riskft.commands.{name}").main(arguments[1:])
    elif name in ("sweep", "rank"):
        import_module(f"riskft.commands.{name}").main(arguments[1:], main)
    elif name in ("-h", "--help"):
        print(HELP)  # noqa: T201
    elif name == "--version":
        print(f"riskft {__version__}")  # noqa: T201
    else:
        found = f"There is no command '{name}'." if name else "Give a command."
        raise UsageError(found, "(all commands: riskft --help)")


def _run(arguments: list[str]) -> None:
    """Runs a command that has a trainer."""
    with quick_imports(arguments):
        from riskft.build import Command

    command: Command | None = None

    def advice() -> str:
        return go_on(arguments, command.folder) if command and command.folder else again(arguments)

    # Lightning starts the other processes of a DDP run with sys.argv
    saved, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        with ending_with(advice), Command(arguments) as command:
            command.build()
            command.run()
    finally:
        sys.argv = saved


def _finish_wandb() -> None:
    """Ends the W&B run, so that another command in the same process does not continue it."""
    if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
        wandb.finish()


def _set_up_logging() -> None:
    logger = logging.getLogger("riskft")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    for each in logger.handlers:
        if type(each) is logging.StreamHandler:  # an earlier command of this process may have had another stderr
            each.stream = sys.stderr  # setStream would flush the other one, which may be closed
    # ranks other than the first only warn
    logger.setLevel(logging.INFO if is_first_rank() else logging.WARNING)
    hide_warnings()


if __name__ == "__main__":
    main()
