"""Checks the options of many runs with few parses, each of which takes 0.2 s.

Options that do not depend on each other are checked one value at a time: of 10 methods x 10 sizes, 19 combinations
instead of 100. Options depend on each other if one is part of the other (a class and its ``init_args``), a config file
sets both or sets part of the other, or a value refers to the other with ``${...}``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from riskft.arguments.given import options_of
from riskft.errors import InputError
from riskft.run.folder import RunOptions

Arguments = tuple[str, ...]
Group = tuple[int, ...]
#: Returns where a run with these arguments goes, and its seed; raises InputError if riskft cannot run them.
Resolve = Callable[[Arguments], tuple[RunOptions, int]]
REFERENCE = re.compile(r"\$\{\.*([^${}:]+)\}")
#: The options that a model which describes itself sets defaults of, by the option that names the model.
DESCRIBED = {"model.source.checkpoint": ("model", "data")}


def with_few_parses(resolve: Resolve, runs: Sequence[Arguments]) -> Resolve:
    """Returns a ``resolve`` for these runs that calls the given one for few of them.

    Args:
        resolve: Parses a run's arguments.
        runs: The arguments ``--name=value`` of all runs, with the same names in the same order.
    """
    distinct = list(dict.fromkeys(runs))
    groups = _dependent(distinct)
    values = [list(dict.fromkeys(_at(run, group) for run in distinct)) for group in groups]
    if sum(len(each) - 1 for each in values) + 1 >= len(distinct):
        return resolve
    base = _base(resolve, distinct, groups)
    if base is None:
        return resolve

    def composed(run: Arguments) -> tuple[RunOptions, int]:
        own = resolve(base)
        options, seed = own
        for group in groups:
            if _at(run, group) != _at(base, group):
                other = resolve(tuple(run[place] if place in group else text for place, text in enumerate(base)))
                changes = {name: value for name, value in vars(other[0]).items() if value != vars(own[0])[name]}
                options, seed = replace(options, **changes), seed if other[1] == own[1] else other[1]
        return options, seed

    return composed


def _base(resolve: Resolve, runs: Sequence[Arguments], groups: Sequence[Group]) -> Arguments | None:
    """Returns a run without a fault; if there is none, any run if all tried have the same fault, otherwise None."""
    seen: set[tuple[Group, Arguments]] = set()
    faults: set[str] = set()
    while True:
        parts, run = min(
            (({(group, _at(run, group)) for group in groups}, run) for run in runs), key=lambda one: len(one[0] & seen)
        )
        if parts <= seen:
            return run if len(faults) == 1 else None
        try:
            resolve(run)
        except InputError as error:
            faults.add(str(error))
            seen |= parts
        else:
            return run


def _at(run: Arguments, group: Group) -> Arguments:
    return tuple(run[place] for place in group)


def _dependent(runs: Sequence[Arguments]) -> list[Group]:
    """Returns the positions of the arguments that vary, in groups that depend on each other.

    Positions whose values are not all combined with each other, such as those of a sweep's ``rows``, stay together.
    """
    given = list(zip(*runs, strict=True))
    columns = {place: texts for place, texts in enumerate(given) if len(set(texts)) > 1}
    touched = {place: {name for text in set(texts) for name in _touched(text)} for place, texts in columns.items()}
    for texts in given:  # a value that all runs share may refer to several options
        for name, value in _settings(texts[0]) if len(set(texts)) == 1 else ():
            if references := REFERENCE.findall(value):
                number = -1 - len(columns)
                columns[number], touched[number] = texts, {name, *references}
    groups: list[list[int]] = []
    for place, texts in columns.items():
        met = [
            group
            for group in groups
            if any(
                any(_meet(one, name) for one in touched[other] for name in touched[place])
                or len(set(zip(texts, columns[other], strict=True))) < len(set(texts)) * len(set(columns[other]))
                for other in group
            )
        ]
        groups = [group for group in groups if group not in met]
        groups.append([*(other for group in met for other in group), place])
    places = [tuple(place for place in group if place >= 0) for group in groups]
    return [group for group in places if group]


def _touched(argument: str) -> Iterator[str]:
    """Yields the options that an argument sets or refers to."""
    for name, value in _settings(argument):
        plain = name.removesuffix("+").removesuffix(".class_path")
        yield plain
        yield from (part for key, parts in DESCRIBED.items() if _meet(plain, key) for part in parts)
        yield from REFERENCE.findall(value)


def _settings(argument: str) -> Iterator[tuple[str, str]]:
    """Yields the options that an argument sets, and their values as text."""
    (option,) = options_of([argument])
    yield from _leaves(option.content) if option.name == "config" else [(option.name, option.text)]


def _leaves(content: Any, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items() if isinstance(content, Mapping) else ():
        name = f"{above}{key}"
        yield from _leaves(value, f"{name}.") if isinstance(value, Mapping) and value else [(name, str(value))]


def _meet(one: str, other: str) -> bool:
    """Whether one option is part of the other; a relative reference lacks the beginning of the name."""
    return f".{one}." in f".{other}." or f".{other}." in f".{one}."
