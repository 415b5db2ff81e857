"""The `parameters` of a sweep file: one option each, in W&B's syntax."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from riskft.sweep.distributions import Draw, from_entry

ENTRY_KEYS = {"value", "values", "probabilities", "distribution", "min", "max", "mu", "sigma", "q"}


@dataclass(frozen=True)
class Parameter:
    """One option of riskft that a sweep sets."""

    name: str  #: The option with dots, ``data.train_limit``; ``config`` and ``config.<anything>`` are config files.
    values: tuple[Any, ...] | None  #: Its values; None where it is drawn from a distribution.
    draw: Draw  #: Draws a value.
    varies: bool  #: Whether it was given by ``values`` or a distribution, and so belongs to a run's name.


def read_parameters(entries: object, grid: bool) -> tuple[list[Parameter], list[str]]:
    """Returns the parameters in the order of a file's ``parameters``, drawn or as a grid, and one line per problem."""
    if not isinstance(entries, dict) or not entries:
        return [], ["parameters is missing or empty, expected options such as `seed_everything: {values: [0, 1]}`"]
    parameters, problems = [], []
    for name, entry in _flat(entries):
        try:
            parameters.append(_parameter(name, entry, grid))
        except KeyError as error:
            problems.append(f"{name}: {error.args[0]} is missing")
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: {error}")
    return parameters, problems


def _flat(entries: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each parameter with its name in dots; nested ones lie under a key ``parameters``, as in W&B's syntax."""
    for key, entry in entries.items():
        if isinstance(entry, dict) and isinstance(entry.get("parameters"), dict):
            yield from _flat(entry["parameters"], f"{above}{key}.")
        else:
            yield f"{above}{key}", entry


def _parameter(name: str, entry: Any, grid: bool) -> Parameter:
    if not isinstance(entry, dict):
        raise TypeError(f"is {entry!r}, expected {{value: ...}}, {{values: [...]}} or {{min: ..., max: ...}}")
    if unknown := sorted(map(str, set(entry) - ENTRY_KEYS)):
        raise ValueError(f"unknown key {', '.join(unknown)}, expected some of {', '.join(sorted(ENTRY_KEYS))}")
    if "value" in entry:
        return Parameter(name, (entry["value"],), lambda _: entry["value"], varies=False)
    values = entry.get("values")
    if values is not None and (not isinstance(values, list) or not values):
        raise ValueError(f"values is {values!r}, expected a list of at least one value")
    if values is not None and any(value in values[:number] for number, value in enumerate(values)):
        raise ValueError(f"values {values} holds a value twice")
    draw = from_entry(entry)
    if values is None and grid:
        if entry.get("distribution", "int_uniform") != "int_uniform" or type(entry["min"]) is not int:
            raise ValueError("a grid needs values, or min and max that are whole numbers (or set method: random)")
        values = list(range(entry["min"], entry["max"] + 1))
    return Parameter(name, None if values is None else tuple(values), draw, varies=True)
