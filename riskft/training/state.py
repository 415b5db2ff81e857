"""Helpers for the state of a module in a checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from riskft.compat import BUILT_BY
from riskft.errors import InputError, first_few


@contextmanager
def misfits_named() -> Iterator[None]:
    """Turns torch's error about weights that do not fit into an InputError with its first lines."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "The checkpoint does not fit this command's network and loss. Give the options that it was trained "
            "with (config.yaml in its run folder), or another --ckpt_path:",
            first_few(line.strip() for line in str(error).splitlines()[1:]),
        ) from error


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the hyperparameters that are plain values, or all of a module that the command line built."""
    if BUILT_BY in options:
        return dict(options)
    return {key: value for key, value in options.items() if isinstance(value, str | int | float | bool | None)}


def with_own(prefix: str, loaded: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a loaded state in which the module's own entries replace those that start with the prefix."""
    kept = {key: value for key, value in loaded.items() if not key.startswith(prefix)}
    return {**kept, **{key: value for key, value in own.items() if key.startswith(prefix)}}
