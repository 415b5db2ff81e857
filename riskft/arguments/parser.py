"""The parsers of all commands, with short messages."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from riskft.arguments.given import Option
from riskft.errors import InputError, UsageError, first_few

LINES, WIDTH = 12, 300
#: What jsonargparse says of its own workings, or says twice.
_INNER = re.compile(
    r"\s*(Subtypes: .*|Given value type: .*|Errors:|(- )?Does not validate against any of the Union subtypes|"
    r"- Expected a <class 'NoneType'>|- Expected a path but [\[{].* either not accessible or invalid)\s*"
)


class _Brief(ArgumentParser):
    """Says what is wrong without printing the usage of two hundred options first."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises UsageError; jsonargparse would end the process."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise UsageError(brief(message), f"(all options: {self.prog} --help)") from ex


class CommandParser(_Brief):
    """The parser of a command without a model."""


class BriefParser(_Brief, LightningArgumentParser):
    """The parser of the commands with a model."""


@contextmanager
def config_faults(options: Sequence[Option]) -> Iterator[None]:
    """Turns what cannot be read in config files, which jsonargparse does not catch, into InputError.

    Args:
        options: All of the command.

    Raises:
        InputError: If a file is not text, or a value refers to another that is not there.
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
        # which names a class of Python first, and OmegaConf's own words for where it is last
        reason = " ".join(str(error).split()).partition(" full_key: ")[0]
        reason = reason.replace("KeyError raised while resolving interpolation", "a reference cannot be resolved")
        raise InputError(f"The options cannot be put together: {reason}") from error


def _not_text(name: str) -> str:
    """Says why a config cannot be read; empty if it can, or is given in full, or is for the parser to miss."""
    try:
        Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is {error.object[error.start]:#04x}"
        return f"{name}: is not text in UTF-8 ({where}), expected YAML. Save it as UTF-8, or give another file."
    except (OSError, ValueError):
        return ""
    return ""


def brief(message: str) -> str:
    """Returns a message of jsonargparse without what only its authors understand.

    Args:
        message: The message, of any number of lines.
    """
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
