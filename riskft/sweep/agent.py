"""What W&B's sweep agent hands over, as the sweep file's own parameters."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from riskft.errors import InputError
from riskft.files import write_text
from riskft.sweep.spec import Sweep


def given_values(sweep: Sweep, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns the value of each parameter, in the order of the sweep file.

    Args:
        sweep: The sweep.
        arguments: ``--name=value`` with the value in Python's notation, as the agent's ``${args}`` has it.

    Raises:
        InputError: If a parameter is missing, or one is not the sweep's.
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
    problems += [f"{name} is no parameter of it" for name in given if name not in names]
    problems += [f"{name} is missing" for name in names if name not in given]
    if problems:
        raise InputError(f"These are not the parameters of the sweep {sweep.name}:", problems)
    return {name: given[name] for name in names}


def take_wandb_id(folder: Path, environment: Mapping[str, str]) -> None:
    """Gives a run the id under which W&B's agent expects it, unless it has one."""
    if (agent_id := environment.get("WANDB_RUN_ID")) and not (folder / "wandb_id").is_file():
        write_text(folder / "wandb_id", agent_id)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _flat(name: str, value: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yields the parameters of a nested one, which the agent hands over as one dictionary."""
    if isinstance(value, dict) and name not in names:
        for key, below in value.items():
            yield from _flat(f"{name}.{key}", below, names)
    else:
        yield name, value
