"""The runs of a sweep, each with its folder and its command line."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riskft.errors import InputError
from riskft.run.folder import RunOptions
from riskft.sweep.few_parses import Resolve, with_few_parses
from riskft.sweep.spec import Combination, Sweep

#: Parameters that a run's folder shows elsewhere than in the method's name.
NAMED_ELSEWHERE = ("seed_everything", "config", "config.method", "run.study", "run.method", "run.root", "run.folder")


@dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    folder: str  #: Its run folder.
    arguments: list[str]  #: What ``riskft fit`` gets: config files, then values, then the name.
    #: What differs between the runs: values by parameter, names of rows by ``rows.<group>``.
    values: dict[str, Any] = field(default_factory=dict)
    tested: bool = True  #: Whether it is tested after training.

    @property
    def steps(self) -> tuple[str, ...]:
        """The commands to run, in order."""
        return ("fit", "test") if self.tested else ("fit",)


def plan_runs(sweep: Sweep, resolve: Resolve, tested: bool = True) -> list[Run]:
    """Returns a sweep's runs; ``resolve`` reads a command line as ``riskft fit`` would.

    Raises InputError, with all problems, if riskft cannot run an argument, or runs share a folder.
    """
    resolve = with_few_parses(resolve, [checked(one.values) for one in sweep.combinations()])
    runs: list[Run] = []
    faults: dict[str, list[str]] = defaultdict(list)
    for combination in sweep.combinations():
        try:
            runs.append(plan_run(sweep, combination, resolve, tested))
        except InputError as error:
            faults[str(error)].append(_brief(_varying(sweep, combination)))
    if faults:
        problems = [
            f"with {first}{f' (and {len(others)} more)' if others else ''}: {fault}"
            for fault, (first, *others) in faults.items()
        ]
        raise InputError(f"The sweep {sweep.name} has runs that cannot start:", problems)
    if not runs:
        raise InputError(f"The sweep {sweep.name} has no runs.")
    same = defaultdict(list)
    for run in runs:
        same[run.folder].append(_brief(run.values))
    if shared := [f"{folder}: {'; '.join(values)}" for folder, values in same.items() if len(values) > 1]:
        advice = "give rows names, and each file of `config` another run.method, or call that parameter config.<name>"
        raise InputError(f"Runs of the sweep {sweep.name} share a folder; {advice}:", shared)
    return runs


def plan_run(sweep: Sweep, combination: Combination, resolve: Resolve, tested: bool = True) -> Run:
    """Returns the run with the given values; see ``plan_runs``."""
    values = combination.values
    arguments = fit_arguments(values)
    options, seed = resolve(checked(values))
    seed = values.get("seed_everything", seed)
    if type(seed) is not int:
        raise InputError(f"seed_everything is {seed!r}, expected a whole number")
    # in the method, so that W&B, tables and folders all show it
    label = options.method + "".join(f",{name}={text}" for name, text in _label(sweep, combination).items())
    if label != options.method:
        arguments.append(f"--run.method={label}")
    folder = RunOptions(options.root, options.study, label, options.folder).path(seed)
    return Run(str(folder), arguments, _varying(sweep, combination), tested)


def checked(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the arguments to check: without the seed, so that runs that differ only by it are parsed once."""
    return tuple(fit_arguments({name: value for name, value in values.items() if name != "seed_everything"}))


def _varying(sweep: Sweep, combination: Combination) -> dict[str, Any]:
    """Returns what distinguishes a run from the others."""
    found = {f"rows.{group}": name for group, name in combination.rows.items()}
    unnamed = [
        option for group in sweep.groups if group.name not in combination.rows for option in group.rows[0].values
    ]
    varies = [parameter.name for parameter in sweep.parameters if parameter.varies]
    return found | {option: combination.values[option] for option in [*unnamed, *varies]}


def fit_arguments(values: Mapping[str, Any]) -> list[str]:
    """Returns the command line of a combination: config files first, so that no file overrides a value."""
    configs = [f"--config={argument_text(value)}" for name, value in values.items() if _is_config(name)]
    others = [f"--{name}={argument_text(value)}" for name, value in values.items() if not _is_config(name)]
    return [*configs, *others]


def argument_text(value: Any) -> str:
    """Returns a value as written on the command line: text unchanged, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_config(name: str) -> bool:
    return name == "config" or name.startswith("config.")


def _label(sweep: Sweep, combination: Combination) -> dict[str, str]:
    """Returns what a run's name shows: names of rows, and values under short names unless two parameters share one."""
    names = [parameter.name for parameter in sweep.parameters if parameter.varies]
    shown = [name for name in names if name not in NAMED_ELSEWHERE]
    short = {name: name.rpartition(".")[2] for name in shown}
    count = Counter([*short.values(), *combination.rows])
    label = {group: _text(name) for group, name in combination.rows.items()}
    for name in shown:
        value = combination.values[name]
        text = Path(str(value)).stem if _is_config(name) else argument_text(value)
        label[short[name] if count[short[name]] == 1 else name] = _text(text)
    return label


def _text(value: str) -> str:
    """Returns a value as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-") or "none"


def _brief(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={argument_text(value)}" for name, value in values.items()) or "no varying value"
