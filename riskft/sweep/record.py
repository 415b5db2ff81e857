"""What a sweep keeps in a run's folder: the planned run, and its finished commands."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riskft.errors import InputError, refuse
from riskft.files import read_mapping, write_json
from riskft.run.folder import RunFolder
from riskft.sweep.plan import Run


def write_record(run: Run, done: Sequence[str] = ()) -> None:
    """Writes the planned run and its finished commands to the run's folder.

    A job that waits reads this, not the sweep's file, which may change in the meantime.
    """
    write_json(RunFolder(Path(run.folder)).plan, {**asdict(run), "done": list(done)})


def read_run(folder: Path) -> Run:
    """Returns the run planned in a folder; raises InputError if there is none, or its record is broken."""
    if (content := _read(folder)) is None:
        raise InputError(f"There is no {RunFolder(folder).plan}: no sweep has planned a run there.")
    named, arguments = Path(content["folder"]), content["arguments"]
    if os.path.abspath(named) != os.path.abspath(folder):  # moved since
        named, arguments = folder, [*_without_root(arguments), f"--run.folder={folder}"]
    return Run(str(named), arguments, content["values"], content["tested"])


def steps_done(folder: Path) -> list[str]:
    """Returns the commands that a run has finished."""
    return list((_read(folder) or {"done": []})["done"])


def refuse_others(runs: Sequence[Run]) -> None:
    """Raises InputError, naming all, if folders hold runs with other options: nothing is overwritten."""
    problems = []
    for run in runs:
        folder = Path(run.folder)
        if not (RunFolder(folder).config.is_file() or RunFolder(folder).log.is_file()):
            continue  # planned at most, never started
        if (content := _read(folder)) is None:
            problems.append(f"{folder} holds a run that no sweep started")
        elif (before := _without_root(content["arguments"])) != (planned := _without_root(run.arguments)):
            gone, new = ([part for part in a if part not in b] for a, b in ((before, planned), (planned, before)))
            was, now = (" ".join(parts) or "nothing" for parts in (gone, new))
            problems.append(f"{folder} was run with {was} where the sweep has {now}")
    refuse("Set another run.study, or remove these folders:", problems)


def _without_root(arguments: Sequence[str]) -> list[str]:
    """Returns a run's options without the folder of all runs, which may have been moved."""
    return [argument for argument in arguments if not argument.startswith(("--run.root=", "--run.folder="))]


def _read(folder: Path) -> dict[str, Any] | None:
    path = RunFolder(folder).plan
    if not path.is_file():
        return None
    content = read_mapping(path)
    kinds = {"folder": str, "arguments": list, "values": dict, "tested": bool, "done": list}
    problems = [
        f"{name} is {content[name]!r}, expected a {kind.__name__}" if name in content else f"{name} is missing"
        for name, kind in kinds.items()
        if not isinstance(content.get(name), kind)
    ] or [
        f"{name} holds {part!r}, expected text"
        for name in ("arguments", "done")
        for part in content[name]
        if not isinstance(part, str)
    ]
    refuse(f"{path}: is not a record that a sweep wrote. Remove the file, and start the sweep again:", problems)
    return content
