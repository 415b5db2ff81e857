"""Draws from the distributions of W&B's sweep files."""

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

Draw = Callable[[random.Random], Any]


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

    Args:
        entry: ``values`` (and ``probabilities``), or ``distribution`` with ``min``, ``max``, ``mu``, ``sigma``, ``q``.
            Without ``distribution``, ``min`` and ``max`` are drawn as whole numbers if both are whole, as W&B does.
            Distributions with ``q_`` before their name are rounded to multiples of ``q``.

    Raises:
        ValueError: For an unknown distribution or a value that it does not allow.
        KeyError: If a necessary value is missing.
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
