"""Switches on the command line, which mean true if they have no value."""

from collections.abc import Sequence

FLAGS = ("--overwrite", "--run.overwrite", "--probabilities", "--expected_risk", "--trust-pickle", "--maps")
_VALUES = ("true", "false", "yes", "no", "on", "off", "1", "0")


def with_values(arguments: Sequence[str]) -> list[str]:
    """Returns the command line with ``true`` after each switch that has no value.

    All commands take ``--overwrite``, ``--overwrite true``, ``--overwrite false`` and ``--overwrite=true``, and never
    mistake the next argument for the value. ``fit`` takes ``--overwrite`` for ``--run.overwrite``.
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
