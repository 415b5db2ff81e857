"""Parses a command line as ``riskft fit`` would, without starting it."""

import functools

from riskft.build import Command
from riskft.errors import InputError, UsageError
from riskft.run.options import RunOptions


@functools.cache
def resolve(arguments: tuple[str, ...]) -> tuple[RunOptions, int]:
    """Returns where a run goes and its seed.

    Raises:
        InputError: If ``riskft fit`` would refuse the arguments, with its message.
    """
    try:
        command = Command(["fit", *arguments])
    except UsageError as error:
        raise InputError(error.args[0]) from None
    return command.run_options, command.options.seed_everything
