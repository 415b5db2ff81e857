"""What a source model says of itself, as defaults that the user's configs override."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.arguments.given import Option, last_file
from riskft.source.packages import find_package

log = logging.getLogger(__name__)


def package_defaults(options: Sequence[Option]) -> list[str]:
    """Returns a first config for a command, with what the source model implies; nothing if it does not describe itself.

    The user's configs may override parts of what the model implies, so the parser must know it before these.

    Args:
        options: All of the command.

    Raises:
        InputError: If the source is such a model, but broken.
    """
    checkpoint = last_file(options, "model.source.checkpoint")
    package = find_package(Path(checkpoint)) if checkpoint else None
    if package is None or not package.config:
        return []
    log.info("%s describes itself; defaults from there: %s", checkpoint, ", ".join(_names(package.config)))
    return ["--config", json.dumps(package.config)]


def _names(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yields the options that a nested config sets, those of one object as one."""
    for key, value in config.items():
        if isinstance(value, Mapping) and "class_path" not in value:
            yield from _names(value, f"{above}{key}.")
        else:
            yield f"{above}{key}" + ("" if isinstance(value, Mapping) else f"={value}")
