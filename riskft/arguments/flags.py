"""Switches on the command line, which mean yes where they are given alone."""

from collections.abc import Sequence

FLAGS = ("--overwrite", "--run.overwrite", "--probabilities", "--trust-pickle", "--maps")
_VALUES = ("true", "false", "yes", "no", "on", "off", "1", "0")


def with_values(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with ``true`` after each switch that has no value of its own.

    So ``--overwrite``, ``--overwrite true``, ``--overwrite false`` and ``--overwrite=true`` work in all commands, and
    what follows a switch is never taken for its value. ``fit``, where the option is ``--run.overwrite``, takes the
    short name too.

    Args:
        arguments: Those of the command line, the command first.
    """
    fit = list(arguments[:1]) == ["fit"]
    result: list[str] = []
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if fit and name == "--overwrite":
            name = "--run.overwrite"
        result.append(f"{name}{equals}{value}")
        after = arguments[index + 1].lower() if index + 1 < len(arguments) else ""
        if argument in FLAGS and after not in _VALUES:
            result.append("true")
    return result
