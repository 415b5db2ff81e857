"""The options given to a command, read before the parser checks them.

The parser handles one option at a time. Some things depend on several and must be known first: the defaults of a source
model that describes itself, the callbacks of all configs, and whether a run was moved. Each file is read once. Its
faults are left to the parser, which reports them better.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


@dataclass(frozen=True)
class Option:
    """One option of a command line."""

    name: str  #: Without dashes, such as ``model.source.checkpoint``; ``config`` for a config.
    text: str  #: Its value as given.

    @cached_property
    def content(self) -> Any:
        """The content of the text, which is YAML or the name of a YAML file; None if neither."""
        try:
            is_file = Path(self.text).is_file()
        except (OSError, ValueError):  # the text cannot be a file's name
            is_file = False
        try:
            return yaml.safe_load(Path(self.text).read_text(encoding="utf-8") if is_file else self.text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return None

    def values(self, wanted: str, *, is_file: bool = False) -> Iterator[tuple[str, Any]]:
        """Yields the full name and the value of each part of the wanted option that this option sets.

        For example, ``--config``, ``--trainer`` and ``--trainer.callbacks+`` can set ``trainer.callbacks``. If the
        wanted option names a file (``is_file``), the file is not read.
        """
        name = self.name.removesuffix("+")
        if name == "config":
            yield from _inside(self.content, wanted)
        elif wanted.startswith(f"{name}."):
            yield from _inside({name: self.content}, wanted)
        elif name == wanted or name.startswith(f"{wanted}."):
            yield name, self.content if not is_file else None if self.text == "null" else self.text


def options_of(arguments: Sequence[str]) -> list[Option]:
    """Returns a command's options in order; both ``--a b`` and ``--a=b`` count."""
    found = []
    for index, given in enumerate(arguments):
        argument = "--config" if given == "-c" else given
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            found.append(Option(name[2:], value))
        elif argument.startswith("--") and index + 1 < len(arguments):
            found.append(Option(name[2:], arguments[index + 1]))
    return found


def divided(arguments: Sequence[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """Returns a command's own options, given their names with dashes, and those of ``fit``, each with its values."""
    mine: list[str] = []
    others: list[str] = []
    into = others
    for part in arguments:
        if part.startswith("-") and not part[1:2].isdigit():
            into = mine if part.partition("=")[0] in own else others
        into.append(part)
    return mine, others


def last_file(options: Sequence[Option], wanted: str) -> str | None:
    """Returns the file that an option names in the end, references resolved; None if there is none, or they fail."""
    values = [value for option in options for _, value in option.values(wanted, is_file=True)]
    value = values[-1] if values else None
    if isinstance(value, str) and "${" in value:
        return _resolved(options, wanted, value)
    return value if isinstance(value, str) else None


def _resolved(options: Sequence[Option], wanted: str, value: str) -> str | None:
    """Returns a value with its references resolved in the merged configs."""
    merged: Any = {}
    for option in options:
        if option.name == "config":
            merged = updated(merged, option.content)
    try:
        found = OmegaConf.select(OmegaConf.create(updated(merged, nested(wanted, value))), wanted)
    except (OmegaConfBaseException, ValueError):
        return None
    return found if isinstance(found, str) else None


def nested(name: str, value: Any) -> Any:
    """Returns nested mappings that set an option whose name has dots."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def updated(before: Any, after: Any) -> Any:
    """Returns nested options updated with later ones: mappings are merged, anything else is replaced."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    return {**before, **{key: updated(before.get(key), value) for key, value in after.items()}}


def _inside(content: Any, wanted: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a wanted option and its parts from a config, whose keys may be nested or have dots."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        name = f"{above}{key}".removesuffix("+")
        if name == wanted or name.startswith(f"{wanted}."):
            yield name, value
        elif wanted.startswith(f"{name}."):
            yield from _inside(value, wanted, f"{name}.")
