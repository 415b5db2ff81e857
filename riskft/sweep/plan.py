"""The runs of a sweep, each with its folder and its command line."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from riskft.errors import InputError
from riskft.run_folder import RunOptions
from riskft.sweep.spec import Parameter, Sweep

#: Parameters that a run's folder shows in another way than in the method's name.
NAMED_ELSEWHERE = ("seed_everything", "config", "config.method", "run.study", "run.method", "run.root", "run.folder")


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Args:
        folder: Where it goes.
        arguments: What ``riskft fit`` gets: config files, then values, then the name.
        values: The values that differ between the runs, by parameter.
        tested: Whether it is tested after it was trained.
    """

    folder: str
    arguments: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    tested: bool = True

    @property
    def steps(self) -> tuple[str, ...]:
        """The commands that it takes, in order."""
        return ("fit", "test") if self.tested else ("fit",)


#: Says where a run with these arguments goes and what seed it has; raises InputError if they are no good.
Resolve = Callable[[tuple[str, ...]], tuple[RunOptions, int]]


def plan_runs(sweep: Sweep, resolve: Resolve, tested: bool = True) -> list[Run]:
    """Returns a sweep's runs.

    Args:
        sweep: The sweep.
        resolve: Reads a command line as ``riskft fit`` would.
        tested: Whether runs are tested too.

    Raises:
        InputError: If an argument is no good, or runs share a folder; all of them in one report.
    """
    runs, problems = [], []
    for values in sweep.combinations():
        try:
            runs.append(plan_run(sweep, values, resolve, tested))
        except InputError as error:
            problems.append(f"with {_brief(values)}: {error}")
    if problems:
        raise InputError(f"The sweep {sweep.name} holds runs that cannot start:", _once(problems))
    if not runs:
        raise InputError(f"The sweep {sweep.name} holds no run.")
    same = defaultdict(list)
    for run in runs:
        same[run.folder].append(_brief(run.values))
    if shared := [f"{folder}: {'; '.join(values)}" for folder, values in same.items() if len(values) > 1]:
        advice = "give each file of a parameter `config` another run.method, or call the parameter config.<name>"
        raise InputError(f"Runs of the sweep {sweep.name} share a folder; {advice}:", shared)
    return runs


def plan_run(sweep: Sweep, values: Mapping[str, Any], resolve: Resolve, tested: bool = True) -> Run:
    """Returns the run with the given values; see ``plan_runs``."""
    arguments = fit_arguments(values)
    # without the seed, so that runs that differ by it alone need be read once
    options, seed = resolve(tuple(part for part in arguments if not part.startswith("--seed_everything=")))
    seed = values.get("seed_everything", seed)
    if type(seed) is not int:
        raise InputError(f"seed_everything is {seed!r}, expected a whole number")
    label = options.method + "".join(
        f",{name}={text}" for name, text in _label(sweep.parameters, values).items()
    )  # in the method, so that W&B, tables and folders all show it
    if label != options.method:
        arguments.append(f"--run.method={label}")
    folder = RunOptions(options.root, options.study, label, options.folder).path(seed)
    varying = {parameter.name: values[parameter.name] for parameter in sweep.parameters if parameter.varies}
    return Run(str(folder), arguments, varying, tested)


def fit_arguments(values: Mapping[str, Any]) -> list[str]:
    """Returns the command line of a combination: config files first, so that no file undoes a value."""
    configs = [f"--config={value}" for name, value in values.items() if _is_config(name)]
    others = [f"--{name}={argument_text(value)}" for name, value in values.items() if not _is_config(name)]
    return [*configs, *others]


def argument_text(value: Any) -> str:
    """Returns a value as it is written on the command line: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _is_config(name: str) -> bool:
    return name == "config" or name.startswith("config.")


def _label(parameters: Iterable[Parameter], values: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a run's name shows of its values: short names, unless two parameters share one."""
    shown = [parameter.name for parameter in parameters if parameter.varies and parameter.name not in NAMED_ELSEWHERE]
    short = {name: name.rpartition(".")[2] for name in shown}
    count = Counter(short.values())
    label = {}
    for name in shown:
        value = Path(str(values[name])).stem if _is_config(name) else argument_text(values[name])
        text = re.sub(r"[^A-Za-z0-9._+-]+", "-", value).strip("-")
        label[short[name] if count[short[name]] == 1 else name] = text or "none"
    return label


def _brief(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={argument_text(value)}" for name, value in values.items()) or "no varying value"


def _once(problems: list[str]) -> list[str]:
    """Returns one line a fault, which many runs may share, with the first run that has it."""
    by_fault: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        run, _, fault = problem.partition(": ")
        by_fault[fault].append(run)
    more = {fault: f" (and {len(runs) - 1} more)" if len(runs) > 1 else "" for fault, runs in by_fault.items()}
    return [f"{runs[0]}{more[fault]}: {fault}" for fault, runs in by_fault.items()]
