"""A sweep file in W&B's syntax, and the combinations of values that it stands for."""

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError
from riskft.sweep.distributions import Draw, from_entry

#: What W&B's sweep files may hold. riskft uses name, method, parameters and run_cap; the others are for W&B alone.
KEYS = {
    *("name", "method", "parameters", "run_cap", "command"),
    *("description", "program", "project", "entity", "metric", "early_terminate", "controller", "settings"),
}
ENTRY_KEYS = {"value", "values", "probabilities", "distribution", "min", "max", "mu", "sigma", "q"}


@dataclass(frozen=True)
class Parameter:
    """One option of riskft that a sweep sets.

    Args:
        name: The option with dots, ``data.train_limit``; ``config`` and ``config.<anything>`` are config files.
        values: What it takes; None where it is drawn from a distribution.
        draw: Draws a value.
        varies: Whether it was given by ``values`` or a distribution, and so belongs to a run's name.
    """

    name: str
    values: tuple[Any, ...] | None
    draw: Draw
    varies: bool


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        name: What the sweep is called; by default the file's stem.
        random: Whether values are drawn (``method: random``) or all combined (``method: grid``).
        parameters: In the order of the file.
        run_cap: The most runs; a random sweep has exactly so many.
    """

    name: str
    random: bool
    parameters: tuple[Parameter, ...]
    run_cap: int | None

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yields each run's values by parameter, always in the same order; a raised ``run_cap`` adds runs at the end.

        The last parameter of a grid changes fastest. Draws are seeded by the sweep's name.
        """
        if self.random:
            rng = random.Random(self.name)
            for _ in range(self.run_cap or 0):
                yield {parameter.name: parameter.draw(rng) for parameter in self.parameters}
            return
        grid = itertools.product(*(parameter.values or () for parameter in self.parameters))
        names = [parameter.name for parameter in self.parameters]
        for values in itertools.islice(grid, self.run_cap):
            yield dict(zip(names, values, strict=True))


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        InputError: If it cannot be read or holds what riskft cannot run, all faults in one report.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"The sweep file {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"The sweep file {path} holds {type(content).__name__}, expected keys such as parameters.")
    problems = [f"unknown key '{key}', expected one of {', '.join(sorted(KEYS))}" for key in content if key not in KEYS]
    method, run_cap = content.get("method", "grid"), content.get("run_cap")
    if method not in ("grid", "random"):
        problems.append(
            f"method is {method}, expected grid or random (W&B's server does others: "
            "`wandb sweep` and `wandb agent` take the same file)"
        )
    if run_cap is not None and (type(run_cap) is not int or run_cap < 1):
        problems.append(f"run_cap is {run_cap}, expected a whole number above 0")
    if method == "random" and run_cap is None:
        problems.append("method is random: give run_cap, the number of runs")
    parameters = []
    entries = content.get("parameters")
    if not isinstance(entries, dict) or not entries:
        problems.append("parameters is missing or empty, expected options such as `seed_everything: {values: [0, 1]}`")
        entries = {}
    for name, entry in flat_entries(entries):
        try:
            parameters.append(_parameter(name, entry, method == "grid"))
        except KeyError as error:
            problems.append(f"{name}: {error.args[0]} is missing")
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise InputError(f"The sweep file {path} is not usable:", problems)
    name = str(content.get("name", path.stem))
    return Sweep(name, method == "random", tuple(parameters), run_cap)


def flat_entries(entries: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each parameter with its name in dots; nested ones lie under a key ``parameters``, as in W&B's syntax."""
    for key, entry in entries.items():
        if isinstance(entry, dict) and isinstance(entry.get("parameters"), dict):
            yield from flat_entries(entry["parameters"], f"{above}{key}.")
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
