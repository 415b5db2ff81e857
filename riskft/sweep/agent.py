"""The values that W&B's sweep agent passes, as parameters of the sweep file."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.errors import InputError, refuse
from riskft.files import write_text
from riskft.run.folder import RunFolder
from riskft.sweep.spec import Sweep, read_sweeps


def read_for_wandb(path: Path) -> Sweep:
    """Reads the sweep of a file that W&B's server has read too; refuses what only riskft understands."""
    sweep, *others = read_sweeps(path)
    found = [text for text, is_there in (("rows", sweep.groups), ("several sweeps", others)) if is_there]
    if found:
        raise InputError(
            f"{path}: holds {' and '.join(found)}, which W&B's server does not understand. Run it with "
            f"`riskft sweep {path} --local` or `--submit`."
        )
    return sweep


def given_values(sweep: Sweep, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each parameter, in the order of the sweep file.

    The arguments are ``--name=value`` with the value in Python's notation, as in the agent's ``${args}``. Raises
    InputError if a parameter is missing, or is not one of the sweep's.
    """
    given: dict[str, Any] = {}
    problems = []
    names = [parameter.name for parameter in sweep.parameters]
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals:
            problems.append(f"{argument}: expected --name=value")
        else:
            given.update(_flat(name, _value(text), names))
    problems += [f"{name} is not one of them" for name in given if name not in names]
    problems += [f"{name} is missing" for name in names if name not in given]
    refuse(f"These are not the parameters of the sweep {sweep.name}:", problems)
    return {name: given[name] for name in names}


def take_wandb_id(folder: Path, environment: Mapping[str, str]) -> None:
    """Gives a run the ID that W&B's agent expects, unless it has one."""
    if (agent_id := environment.get("WANDB_RUN_ID")) and not RunFolder(folder).wandb_id.is_file():
        write_text(RunFolder(folder).wandb_id, agent_id)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _flat(name: str, value: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields the parameters inside a nested one, which the agent passes as one dictionary."""
    if isinstance(value, dict) and name not in names:
        for key, below in value.items():
            yield from _flat(f"{name}.{key}", below, names)
    else:
        yield name, value
