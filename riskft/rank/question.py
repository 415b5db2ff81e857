"""What a folder of results belongs to, so that another question does not go on in it."""

import json
import shutil
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


def refuse_other_question(path: Path, asked: Mapping[str, Any], overwrite: bool) -> None:
    """Refuses a folder that has another question.

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


def take_race(out: Path, candidates: Mapping[str, str], overwrite: bool) -> None:
    """Notes what the raced candidates are; if one has changed, the earlier race is deleted first.

    Args:
        out: The folder of the results.
        candidates: A fingerprint of what each candidate's training depends on, by the candidate's name.
        overwrite: Allow changes.

    Raises:
        InputError: If one has changed since an earlier race, and must not be overwritten.
    """
    path = out / "raced.json"
    before = json_or_none(path)
    before = before if isinstance(before, dict) else {}
    changed = [name for name, found in candidates.items() if before.get(name, found) != found]
    if changed and not overwrite:
        raise InputError(
            f"{out} holds a race that had different options, weights or cases for {', '.join(changed)}. "
            "Choose another --out, or add --overwrite true to race again."
        )
    if changed:
        if (out / "race").exists():
            shutil.rmtree(out / "race")
        for name in ("race.csv", "race.json", "race.png", path.name):
            (out / name).unlink(missing_ok=True)
    write_json(path, dict(candidates) if changed else {**before, **candidates})
