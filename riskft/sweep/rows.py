"""The `rows` of a sweep file: options that change together, such as a fold's subjects or a method with its rate.

W&B's syntax has no such thing. A file may hold several named groups of rows, which are combined with each other and
with the parameters:

    rows:
      fold:
        - {name: 1, data.split.init_args.test: [a], data.split.init_args.train: [b, c]}
        - {name: 2, data.split.init_args.test: [b], data.split.init_args.train: [a, c]}
      method:
        - {config.method: configs/method/vanilla.yaml, model.optimizer.init_args.lr: 0.01}
        - {config.method: configs/method/scratch.yaml, model.optimizer.init_args.lr: 0.03}

A row's ``name`` is shown in a run's name, here as ``fold=1``, and ``${rows.fold}`` in any value stands for it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROUP = re.compile(r"\w+")
REFERENCE = re.compile(r"\$\{rows\.([^{}]*)\}")


@dataclass(frozen=True)
class TiedValues:
    """Values of several options that belong together: a row of a sweep file."""

    name: str | None  #: What it is called in a run's name; None where its options are name enough.
    values: Mapping[str, Any]  #: The values by option.


@dataclass(frozen=True)
class RowGroup:
    """Rows of which each run takes one."""

    name: str  #: What the group is called, such as ``fold``.
    rows: tuple[TiedValues, ...]  #: At least one. All set the same options, and all or none have a name.


def read_rows(content: object) -> tuple[list[RowGroup], list[str]]:
    """Returns the groups of a file's ``rows``, in order, and one line per problem."""
    if not isinstance(content, dict) or not content:
        return [], [f"rows is {content!r}, expected groups such as `rows: {{fold: [{{name: 1, option: value}}, ...]}}`"]
    problems = []
    for name, rows in content.items():
        where = f"rows.{name}"
        if not GROUP.fullmatch(str(name)):
            problems.append(f"{where}: expected a group's name of letters, digits and _")
        if not isinstance(rows, list) or not rows:
            problems.append(f"{where} is {rows!r}, expected a list of at least one row")
        elif strange := [row for row in rows if not isinstance(row, dict) or not set(row) - {"name"}]:
            problems += [f"{where} holds {row!r}, expected a mapping such as {{option: value}}" for row in strange]
        else:
            problems += [f"{where}, row {number + 1}: {fault}" for number, fault in _row_faults(rows)]
    if problems:
        return [], problems
    return [RowGroup(str(name), tuple(_tied(row) for row in rows)) for name, rows in content.items()], []


def _tied(row: Mapping[str, Any]) -> TiedValues:
    name = row.get("name")
    return TiedValues(None if name is None else str(name), {key: row[key] for key in row if key != "name"})


def _row_faults(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    """Yields the number of each faulty row of a group, with the fault."""
    for number, row in enumerate(rows):
        if row in rows[:number]:
            yield number, "is there twice"
        if missing := [str(key) for key in rows[0] if key not in row]:
            yield number, f"lacks {', '.join(missing)}, which row 1 sets"
        if added := [str(key) for key in row if key not in rows[0]]:
            yield number, f"sets {', '.join(added)}, which row 1 does not"
        if type(row.get("name", "")) not in (str, int, float):
            yield number, f"name is {row['name']!r}, expected text or a number"
        for key, value in row.items():
            if not isinstance(key, str):
                yield number, f"{key!r} is not the name of an option"
            if isinstance(value, dict) and value.keys() in ({"value"}, {"values"}):
                yield number, f"{key} is {value}, expected the value itself; lists of values belong in parameters"


def reference_faults(values: Mapping[str, Any], groups: Sequence[RowGroup]) -> list[str]:
    """Returns one line for each ``${rows.<group>}`` in values by option (or lists of them) that stands for nothing."""
    named = [group.name for group in groups if group.rows[0].name is not None]
    known = f"the groups with names are {', '.join(named)}" if named else "no group has names"
    return [
        f"{option}: ${{rows.{reference}}} stands for nothing; {known}"
        for option, value in values.items()
        for reference in dict.fromkeys(_references(value))
        if reference not in named
    ]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from REFERENCE.findall(value)
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _references(part)


def filled(value: Any, names: Mapping[str, str]) -> Any:
    """Returns a value of YAML with each ``${rows.<group>}`` replaced by the chosen row's name."""
    if isinstance(value, str):
        return REFERENCE.sub(lambda found: names[found[1]], value)
    if isinstance(value, Mapping):
        return {key: filled(part, names) for key, part in value.items()}
    return [filled(part, names) for part in value] if isinstance(value, list) else value
