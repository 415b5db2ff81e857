"""Defaults from a source model that describes itself; the user's configs override them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.arguments.given import Option, last_file
from riskft.source.packages import find_package

log = logging.getLogger(__name__)


def package_defaults(options: Sequence[Option]) -> list[str]:
    """Returns a ``--config`` to put first, with the source model's own options; empty if it does not describe itself.

    It comes before the user's configs, because these may override parts of it. Raises InputError if the model describes
    itself but is broken.
    """
    checkpoint = last_file(options, "model.source.checkpoint")
    package = find_package(Path(checkpoint)) if checkpoint else None
    if package is None or not package.config:
        return []
    log.info("%s sets these defaults: %s", checkpoint, ", ".join(_names(package.config)))
    return ["--config", json.dumps(package.config)]


def _names(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yields the options that a nested config sets; an object with its options counts as one."""
    for key, value in config.items():
        if isinstance(value, Mapping) and "class_path" not in value:
            yield from _names(value, f"{above}{key}.")
        else:
            yield f"{above}{key}" + ("" if isinstance(value, Mapping) else f"={value}")
