"""The parsers of all commands, with shortened messages."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NoReturn

import yaml
from jsonargparse import ArgumentParser
from omegaconf.errors import OmegaConfBaseException

from riskft.arguments.given import Option
from riskft.errors import InputError, UsageError, first_few

LINES, WIDTH = 12, 300
#: Lines of jsonargparse about its internals, or that repeat another.
_INNER = re.compile(
    r"\s*(Subtypes: .*|Given value type: .*|Errors:|(- )?Does not validate against any of the Union subtypes|"
    r"- Expected a <class 'NoneType'>|- Expected a path but [\[{].* either not accessible or invalid)\s*"
)


# the default of an option may be a member of an enum although its type is str, as in Lightning's Timer
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


class CommandParser(ArgumentParser):
    """A parser that reports an error without printing the usage of two hundred options first."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises UsageError; jsonargparse would exit."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UsageError(brief(message), f"(all options: {self.prog} --help)") from ex


@contextmanager
def config_faults(options: Sequence[Option]) -> Iterator[None]:
    """Turns errors in config files that jsonargparse does not catch into InputError.

    Such errors are a file that is not text, and a value that refers to a missing option.
    """
    given = dict.fromkeys(option.text for option in options if option.name == "config")
    problems = [problem for name in given if (problem := _not_text(name))]
    if problems:
        raise InputError("These config files cannot be read:", problems)
    try:
        yield
    except UnicodeDecodeError as error:
        raise InputError(f"A file that the options name is not text in UTF-8 ({error}).") from error
    except (OmegaConfBaseException, RecursionError) as error:
        # OmegaConf's message ends with its own name for the place
        reason = " ".join(str(error).split()).partition(" full_key: ")[0]
        reason = reason.replace("KeyError raised while resolving interpolation", "a reference cannot be resolved")
        raise InputError(f"The options cannot be put together: {reason}") from error


def _not_text(name: str) -> str:
    """Says why a config file is not text; empty if it is, or if there is no such file, which the parser reports."""
    try:
        Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is {error.object[error.start]:#04x}"
        return f"{name}: is not text in UTF-8 ({where}), expected YAML. Save it as UTF-8, or give another file."
    except (OSError, ValueError):
        return ""
    return ""


def brief(message: str) -> str:
    """Returns a message of jsonargparse without its internals."""
    lines = [line for line in message.splitlines() if line.strip() and not _INNER.fullmatch(line)]
    return "\n".join(first_few(lines, LINES, _plain))


def _plain(line: str) -> str:
    for pattern, plain in (
        (r"'NoneType' object is not iterable", "null where a list is expected"),
        (r"'(\w+)' object has no attribute 'keys'", r"init_args is of type \1, expected a mapping of options"),
        (r"argument of type '(\w+)' is not iterable", r"class_path is of type \1, expected the name of a class"),
        (r"NestedArg\(key='(\w+)', val=(.*?)\)$", r"\1=\2"),
        (r"<class '([\w.]+)'>", r"\1"),
    ):
        line = re.sub(pattern, plain, line)
    return line if len(line) <= WIDTH else f"{line[:WIDTH]}..."
