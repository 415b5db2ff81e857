"""The options that a command is given, looked at before the parser checks them.

The parser checks each option as it comes. What several of them decide together has to be known before: the defaults of
a source model that describes itself, which the user's configs may change in part; the callbacks of all configs; and
whether a run's config still lies where it says. Each file is read once. Faults in it are left to the parser, which has
better messages for them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


@dataclass(frozen=True)
class Option:
    """One option of a command line.

    Attributes:
        name: Without dashes, such as ``model.source.checkpoint``; ``config`` for a config.
        text: Its value as given.
    """

    name: str
    text: str

    @cached_property
    def content(self) -> Any:
        """What the text says, which is YAML or the name of a YAML file; None if neither."""
        try:
            is_file = Path(self.text).is_file()
        except (OSError, ValueError):  # a text that no file can be named
            is_file = False
        try:
            return yaml.safe_load(Path(self.text).read_text(encoding="utf-8") if is_file else self.text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return None

    def values(self, wanted: str, *, is_file: bool = False) -> Iterator[tuple[str, Any]]:
        """Yields the names and values that this option gives to a wanted one or to parts of it.

        Args:
            wanted: Such as ``trainer.callbacks``, which ``--config``, ``--trainer`` and ``--trainer.callbacks+`` give.
            is_file: The wanted option is the name of a file, which is not read.
        """
        name = self.name.removesuffix("+")
        if name == "config":
            yield from _inside(self.content, wanted)
        elif wanted.startswith(f"{name}."):
            yield from _inside({name: self.content}, wanted)
        elif name == wanted or name.startswith(f"{wanted}."):
            yield name, self.content if not is_file else None if self.text == "null" else self.text


def options_of(arguments: Sequence[str]) -> list[Option]:
    """Returns a command's options in their order, in both ways of writing them (``--a b`` and ``--a=b``)."""
    found = []
    for index, given in enumerate(arguments):
        argument = "--config" if given == "-c" else given
        name, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            found.append(Option(name[2:], value))
        elif argument.startswith("--") and index + 1 < len(arguments):
            found.append(Option(name[2:], arguments[index + 1]))
    return found


def last_file(options: Sequence[Option], wanted: str) -> str | None:
    """Returns the name of a file that an option ends up with, references to other options resolved.

    Args:
        options: All of a command.
        wanted: The option's name.

    Returns:
        The name; None where it is not given, is null, or its references cannot be resolved.
    """
    values = [value for option in options for _, value in option.values(wanted, is_file=True)]
    value = values[-1] if values else None
    if isinstance(value, str) and "${" in value:
        return _resolved(options, wanted, value)
    return value if isinstance(value, str) else None


def _resolved(options: Sequence[Option], wanted: str, value: str) -> str | None:
    """Returns a value with its references resolved among all configs."""
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
    """Returns a mapping in mappings that gives the value to an option whose name has dots."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def updated(before: Any, after: Any) -> Any:
    """Returns nested options with later ones put in: mappings are merged, anything else is replaced."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    return {**before, **{key: updated(before.get(key), value) for key, value in after.items()}}


def _inside(content: Any, wanted: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields an option and those inside it from a config, whose keys may be nested or have dots."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        name = f"{above}{key}".removesuffix("+")
        if name == wanted or name.startswith(f"{wanted}."):
            yield name, value
        elif wanted.startswith(f"{name}."):
            yield from _inside(value, wanted, f"{name}.")
