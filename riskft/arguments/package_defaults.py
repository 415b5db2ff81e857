"""Putting what a source model says of itself before the user's configs."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from riskft.arguments.flags import content_of, options_of
from riskft.source.packages import find_package

log = logging.getLogger(__name__)

_OPTION = "model.source.checkpoint"


def with_package_defaults(arguments: Sequence[str]) -> list[str]:
    """Inserts, as the first config of a command, what the source model implies where it describes itself.

    The user's configs may override parts of what the model implies, so it must be known before these are parsed.

    Args:
        arguments: A command and its options.

    Raises:
        InputError: If the source is such a model, but broken.
    """
    checkpoint = given_checkpoint(arguments)
    package = find_package(Path(checkpoint)) if checkpoint else None
    if package is None or not package.config:
        return list(arguments)
    log.info("%s describes itself; defaults from there: %s", checkpoint, ", ".join(_names(package.config)))
    return [arguments[0], "--config", json.dumps(package.config), *arguments[1:]]


def _names(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yields the options that a nested config sets, those of one object as one."""
    for key, value in config.items():
        if isinstance(value, Mapping) and "class_path" not in value:
            yield from _names(value, f"{above}{key}.")
        else:
            yield f"{above}{key}" + ("" if isinstance(value, Mapping) else f"={value}")


def given_checkpoint(arguments: Sequence[str]) -> str | None:
    """Returns ``model.source.checkpoint`` from a command's config files and options; the last one counts.

    What cannot be read here is left to the command's own parser, which has a better message for it.
    """
    parts = []
    for name, value in options_of(arguments):
        if name == "config" or _OPTION.startswith(f"{name}."):
            content = content_of(value)
            content = content if isinstance(content, dict) else {}
            parts.append(content if name == "config" else _nested(name, content))
        elif name == _OPTION:
            parts.append(_nested(name, None if value == "null" else value))
    try:
        found = OmegaConf.select(OmegaConf.merge(*parts), _OPTION) if parts else None
    except OmegaConfBaseException:
        return None
    return found if isinstance(found, str) else None


def _nested(name: str, value: object) -> object:
    for key in reversed(name.split(".")):
        value = {key: value}
    return value
