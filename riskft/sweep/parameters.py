"""The `parameters` of a sweep file: one option each, in W&B's syntax."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Draw = Callable[[random.Random], Any]
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


def short(value: float) -> float:
    """Returns a number with six significant digits, so that names and command lines stay readable."""
    return float(f"{value:.6g}")


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return short(math.exp(rng.uniform(low, high)))


#: Draws by distribution, from ``min`` and ``max`` (both included; natural logarithms) or ``mu`` and ``sigma``.
DRAWS: Mapping[str, Callable[[random.Random, Any, Any], Any]] = {
    "int_uniform": lambda rng, low, high: rng.randint(low, high),
    "uniform": lambda rng, low, high: short(rng.uniform(low, high)),
    "log_uniform": _log_uniform,
    "log_uniform_values": _log_uniform,
    "normal": lambda rng, mean, deviation: short(rng.gauss(mean, deviation)),
}


def from_entry(entry: Mapping[str, Any]) -> Draw:
    """Returns the draw that a parameter's entry in a sweep file describes.

    This is ``values`` (and ``probabilities``), or ``distribution`` with ``min``, ``max``, ``mu``, ``sigma``, ``q``.
    Without ``distribution``, ``min`` and ``max`` are drawn as whole numbers if both are whole, as W&B does.
    Distributions with ``q_`` before their name are rounded to multiples of ``q``. Raises ValueError for an unknown
    distribution or a value that it does not allow, and KeyError if a necessary value is missing.
    """
    if "values" in entry:
        values, weights = list(entry["values"]), entry.get("probabilities")
        return lambda rng: rng.choices(values, weights)[0]
    whole = all(type(entry.get(key)) is int for key in ("min", "max"))
    name = entry.get("distribution", "int_uniform" if whole else "uniform")
    base = str(name).removeprefix("q_")
    if base not in DRAWS:
        raise ValueError(f"distribution is {name}, expected one of {', '.join([*DRAWS, 'and q_ before each'])}")
    if base == "normal":
        first, second = entry.get("mu", 0.0), entry.get("sigma", 1.0)
    else:
        first, second = entry["min"], entry["max"]
        if not first <= second:
            raise ValueError(f"min {first} is above max {second}")
    if base == "log_uniform_values":
        first, second = math.log(first), math.log(second)
    step = entry.get("q", 1)

    def draw(rng: random.Random) -> Any:
        value = DRAWS[base](rng, first, second)
        if base == name:
            return value
        value = round(value / step) * step
        return value if isinstance(step, int) else short(value)  # 0.3, not 0.30000000000000004

    return draw
