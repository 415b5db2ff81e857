"""Options on the command line: their values, and switches, which mean yes where they are given alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

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


def options_of(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """Returns a command's options with their values, in both ways of writing them."""
    found = []
    for index, given in enumerate(arguments):
        argument = "--config" if given == "-c" else given
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            found.append((name[2:], value))
        elif argument.startswith("--") and index + 1 < len(arguments):
            found.append((name[2:], arguments[index + 1]))
    return found


def content_of(value: str) -> Any:
    """Returns what an option's value says, which is YAML or the name of a file that holds it; None if neither.

    Faults are left to the command's parser, which has better messages for them.
    """
    try:
        is_file = Path(value).is_file()
    except (OSError, ValueError):  # a text that no file can be named
        is_file = False
    try:
        return yaml.safe_load(Path(value).read_text(encoding="utf-8") if is_file else value)
    except (OSError, ValueError, yaml.YAMLError):
        return None
