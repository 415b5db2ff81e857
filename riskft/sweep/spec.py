"""A sweep file, and the combinations of values that it stands for."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError, refuse
from riskft.sweep.parameters import Parameter, read_parameters
from riskft.sweep.rows import RowGroup, TiedValues, filled, read_rows, reference_faults

#: What a sweep file may hold: rows, which W&B does not know, and W&B's own keys. Of these riskft uses name, method,
#: parameters and run_cap; the others are for W&B alone.
KEYS = {
    *("name", "method", "parameters", "rows", "run_cap", "command"),
    *("description", "program", "project", "entity", "metric", "early_terminate", "controller", "settings"),
}


@dataclass(frozen=True)
class Combination:
    """The values of one run."""

    values: Mapping[str, Any]  #: Values by option: those of the parameters, then those of the rows.
    #: The names of the chosen rows, by group; groups without names are left out.
    rows: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """A sweep."""

    name: str  #: What the sweep is called; by default the file's stem.
    random: bool  #: Whether values are drawn (``method: random``) or all combined (``method: grid``).
    parameters: tuple[Parameter, ...]  #: In the order of the file.
    groups: tuple[RowGroup, ...] = ()  #: The groups of rows, in the order of the file.
    run_cap: int | None = None  #: The most runs; a random sweep has exactly this number.

    def combinations(self) -> Iterator[Combination]:
        """Yields each run's values, always in the same order; a raised ``run_cap`` adds runs at the end.

        The last parameter of a grid changes fastest, and rows change more slowly than parameters. Draws are seeded by
        the sweep's name.
        """
        if self.random:
            rng = random.Random(self.name)
            for _ in range(self.run_cap or 0):
                drawn = [parameter.draw(rng) for parameter in self.parameters]
                yield self._combination([rng.choice(group.rows) for group in self.groups], drawn)
            return
        rows = [group.rows for group in self.groups]
        values = [parameter.values or () for parameter in self.parameters]
        for chosen in itertools.islice(itertools.product(*rows, *values), self.run_cap):
            yield self._combination(chosen[: len(rows)], chosen[len(rows) :])

    def _combination(self, rows: Sequence[TiedValues], values: Sequence[Any]) -> Combination:
        names = {group.name: row.name for group, row in zip(self.groups, rows, strict=True) if row.name is not None}
        found = {parameter.name: value for parameter, value in zip(self.parameters, values, strict=True)}
        for row in rows:
            found |= row.values
        # a file without rows stays exactly what W&B reads
        return Combination(filled(found, names) if self.groups else found, names)


def read_sweeps(path: Path) -> list[Sweep]:
    """Reads the sweep of a file, or a list of them under ``sweeps``; raises InputError with all faults."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"The sweep file {path} cannot be read: {error}") from error
    several = isinstance(content, dict) and "sweeps" in content
    contents = content["sweeps"] if several else [content]
    problems = [f"unknown key '{key}' beside sweeps" for key in content if key != "sweeps"] if several else []
    if not isinstance(contents, list) or not contents:
        contents, problems = [], [*problems, f"sweeps is {contents!r}, expected a list of sweeps"]
    sweeps = []
    for number, one in enumerate(contents):
        sweep, faults = _sweep(one, path.stem)
        sweeps.append(sweep)
        problems += [f"sweep {number + 1} ({sweep.name}): {fault}" if several else fault for fault in faults]
    count = Counter(sweep.name for sweep in sweeps)
    problems += [
        f"{number} sweeps are called {name}: rename all but one" for name, number in count.items() if number > 1
    ]
    refuse(f"The sweep file {path} is not usable:", problems)
    return sweeps


def _sweep(content: object, stem: str) -> tuple[Sweep, list[str]]:
    """Returns a sweep, and one line per problem; with problems the sweep is not complete."""
    if not isinstance(content, dict):
        return Sweep(stem, False, ()), [f"holds {type(content).__name__}, expected keys such as parameters"]
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
    parameters: list[Parameter] = []
    groups: list[RowGroup] = []
    if "parameters" in content or "rows" not in content:
        parameters, faults = read_parameters(content.get("parameters"), method == "grid")
        problems += faults
    if "rows" in content:
        groups, faults = read_rows(content["rows"])
        problems += faults or _conflicts(parameters, groups)
    name = str(content.get("name", stem))
    return Sweep(name, method == "random", tuple(parameters), tuple(groups), run_cap), problems


def _conflicts(parameters: Sequence[Parameter], groups: Sequence[RowGroup]) -> Iterator[str]:
    """Yields one line for each option that is set in two places, and for each reference to a row that is not there."""
    places: dict[str, list[str]] = {parameter.name: ["parameters"] for parameter in parameters}
    for group in groups:
        for option in group.rows[0].values:
            places.setdefault(option, []).append(f"rows.{group.name}")
    for option, found in places.items():
        if len(found) > 1:
            yield f"{option} is in {' and in '.join(found)}: leave it in one"
    yield from reference_faults({parameter.name: parameter.values for parameter in parameters}, groups)
    for group in groups:
        for number, row in enumerate(group.rows):
            yield from (f"rows.{group.name}, row {number + 1}: {line}" for line in reference_faults(row.values, groups))
