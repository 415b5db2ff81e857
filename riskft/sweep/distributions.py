"""Draws from the distributions of W&B's sweep files."""

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

Draw = Callable[[random.Random], Any]


def short(value: float) -> float:
    """Returns a number with six significant digits, so that names and command lines stay readable."""
    return float(f"{value:.6g}")


def int_uniform(low: int, high: int) -> Draw:
    """Returns a draw of integers from ``low`` to ``high``, both included."""
    return lambda rng: rng.randint(low, high)


def uniform(low: float, high: float) -> Draw:
    """Returns a draw of numbers from ``low`` to ``high``."""
    return lambda rng: short(rng.uniform(low, high))


def log_uniform(low: float, high: float) -> Draw:
    """Returns a draw of numbers whose natural logarithm is uniform from ``low`` to ``high``."""
    return lambda rng: short(math.exp(rng.uniform(low, high)))


def log_uniform_values(low: float, high: float) -> Draw:
    """Returns a draw of numbers from ``low`` to ``high`` (both above 0) whose logarithm is uniform."""
    return log_uniform(math.log(low), math.log(high))


def normal(mean: float, deviation: float) -> Draw:
    """Returns a draw of normally distributed numbers."""
    return lambda rng: short(rng.gauss(mean, deviation))


def categorical(values: list[Any], weights: list[float] | None = None) -> Draw:
    """Returns a draw of one of the values, by weight where weights are given."""
    return lambda rng: rng.choices(values, weights)[0]


def rounded(draw: Draw, step: float) -> Draw:
    """Returns a draw rounded to multiples of ``step``; whole numbers where the step is whole."""

    def multiple(rng: random.Random) -> Any:
        value = round(draw(rng) / step) * step
        return value if isinstance(step, int) else short(value)  # 0.3, not 0.30000000000000004

    return multiple


def from_entry(entry: Mapping[str, Any]) -> Draw:
    """Returns the draw that a parameter's entry in a sweep file describes.

    Args:
        entry: ``values`` (and ``probabilities``), or ``distribution`` with ``min``, ``max``, ``mu``, ``sigma``, ``q``.
            Without ``distribution``, ``min`` and ``max`` are drawn as whole numbers if both are whole, as W&B does.

    Raises:
        ValueError: For an unknown distribution or a value that it does not allow.
        KeyError: If a necessary value is missing.
    """
    if "values" in entry:
        return categorical(list(entry["values"]), entry.get("probabilities"))
    whole = all(type(entry.get(key)) is int for key in ("min", "max"))
    name = entry.get("distribution", "int_uniform" if whole else "uniform")
    between = {
        "int_uniform": int_uniform,
        "uniform": uniform,
        "log_uniform": log_uniform,
        "log_uniform_values": log_uniform_values,
    }
    base = str(name).removeprefix("q_")
    if base in between:
        low, high = entry["min"], entry["max"]
        if not low <= high:
            raise ValueError(f"min {low} is above max {high}")
        draw = between[base](low, high)
    elif base == "normal":
        draw = normal(entry.get("mu", 0.0), entry.get("sigma", 1.0))
    else:
        known = ", ".join([*between, "normal", "and q_ before each"])
        raise ValueError(f"distribution is {name}, expected one of {known}")
    return rounded(draw, entry.get("q", 1)) if base != name else draw
