"""What a folder of results belongs to, so that another question does not go on in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from riskft.errors import InputError, first_few
from riskft.files import json_or_none, write_json
from riskft.training.record.options import FREE, TRAINER, differences, shown

#: How long a run is, in addition to what its weights depend on.
_LENGTH = ("max_epochs", "max_steps", "max_time")


def question(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a fit's config on which the ranking depends, apart from the sources."""
    data = {name: value for name, value in config["data"].items() if name not in FREE["data"]}
    source = {name: value for name, value in config["model"]["source"].items() if name != "checkpoint"}
    callbacks = config["trainer"].get("callbacks")
    trainer = {name: config["trainer"].get(name) for name in (*TRAINER, *_LENGTH)}
    asked = {
        "seed_everything": config["seed_everything"],
        "data": data,
        "model": {**config["model"], "source": source},
        "trainer": {**trainer, "callbacks": callbacks},
    }
    plain: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return plain


def take_folder(path: Path, asked: Mapping[str, Any], overwrite: bool) -> bool:
    """Writes a folder's question; returns whether the folder had another, whose results are to be replaced.

    Args:
        path: The file of the question.
        asked: See ``question``.
        overwrite: Allow another question than the folder's.

    Raises:
        InputError: If the folder has another question and must not be overwritten.
    """
    before = json_or_none(path)
    changed = [] if before is None or not isinstance(before, dict) else differences(before, asked)
    if changed and not overwrite:
        raise InputError(
            f"{path.parent} holds the ranking for other options. Choose another --out, or add --overwrite true:",
            first_few([f"{name}: {shown(then)} there, {shown(now)} here" for name, then, now in changed], 5),
        )
    write_json(path, asked)
    return bool(changed)


def take_race(path: Path, sources: Mapping[str, str], overwrite: bool) -> bool:
    """Notes what the raced sources are; returns whether one has changed, so that the race must start again.

    Args:
        path: The file of the notes.
        sources: A fingerprint of each candidate's weights and training cases, by the candidate's name.
        overwrite: Allow changes.

    Raises:
        InputError: If one has changed since an earlier race, and must not be overwritten.
    """
    before = json_or_none(path)
    before = before if isinstance(before, dict) else {}
    changed = [name for name, found in sources.items() if before.get(name, found) != found]
    if changed and not overwrite:
        raise InputError(
            f"{path.parent} holds a race in which the weights or training cases of {', '.join(changed)} were others. "
            "Choose another --out, or add --overwrite true to race again."
        )
    write_json(path, dict(sources) if changed else {**before, **sources})
    return bool(changed)
