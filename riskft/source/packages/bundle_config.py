"""Reads the plain part of a MONAI bundle's configs: literal values and references, no expressions."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError

Config = Mapping[str, Any]


class NotPlainError(Exception):
    """A value that is an expression (arbitrary Python) or leads nowhere, at a ``key`` like ``network_def::net``."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"'{key}' {reason}")


def read_config(path: Path) -> dict[str, Any]:
    """Reads a JSON or YAML config as plain values; raises InputError if it is not a readable mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be read as the config of a MONAI bundle ({first}).") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: found {type(content).__name__}, expected the mapping of a MONAI bundle's config.")
    return content


def resolve(root: Config, value: Any, key: str, seen: frozenset[str] = frozenset()) -> Any:
    """Returns a value of a config with its references (``@id`` and ``%id``) replaced by the values they refer to.

    ``key`` is the value's position, for the message, and ``seen`` are the references that led to it. Raises
    NotPlainError if it contains an expression, or a reference that leads nowhere or to itself.
    """
    if isinstance(value, Mapping):
        return {name: resolve(root, item, f"{key}::{name}", seen) for name, item in value.items()}
    if isinstance(value, list):
        return [resolve(root, item, f"{key}::{index}", seen) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        raise NotPlainError(key, f"is the expression {value!r}, which riskft does not evaluate")
    if value[:1] in ("@", "%"):
        if value in seen:
            raise NotPlainError(key, f"refers to itself by {value!r}")
        return _at(root, value[1:].replace("#", "::"), key, seen | {value})
    return value


def _at(root: Config, reference: str, key: str, seen: frozenset[str]) -> Any:
    """Returns the resolved value at ``a::b::0``, following references on the way."""
    node: Any = root
    for part in reference.split("::"):
        if isinstance(node, str) and node[:1] in ("@", "%", "$"):
            node = resolve(root, node, key, seen)
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise NotPlainError(key, f"refers to '{reference}', which this config does not hold")
    return resolve(root, node, reference, seen)


def plain(root: Config, value: Any) -> Any:
    """Returns a value with its references replaced, or None if it is not plain."""
    try:
        return resolve(root, value, "")
    except NotPlainError:
        return None


def components(root: Config, node: Any = None) -> Iterator[Config]:
    """Yields each enabled component (a mapping with ``_target_``), outer ones first."""
    node = root if node is None else node
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str) and node.get("_disabled_", False) is False:
            yield node
        for item in node.values():
            yield from components(root, item) if item is not None else ()
    elif isinstance(node, list):
        for item in node:
            yield from components(root, item) if item is not None else ()
