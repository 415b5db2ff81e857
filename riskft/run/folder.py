"""One folder a run, with a fixed place for everything."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError
from riskft.files import read_text, write_text

RECORD = "record.json"
SEED_FOLDER = re.compile(r"seed=(\d+)$")


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and what it is called; W&B gets the same names.

    The folder is ``<root>/<study>/<method>/seed=<n>`` and holds ``config.yaml``, ``checkpoints``, ``risk``,
    ``heatmaps``, ``cases.csv``, ``metrics.csv``, ``predictions`` and ``wandb``.

    Args:
        root: Folder of all runs.
        study: What is compared; runs of a study share a W&B group.
        method: How it was trained; the W&B job type.
        folder: Another folder than the one made of the above.
        overwrite: Let ``fit`` start anew in a folder that holds a run. To go on with it, use ``--ckpt_path last``.
    """

    root: str = "runs"
    study: str = "default"
    method: str = "riskft"
    folder: str | None = None
    overwrite: bool = False

    def path(self, seed: int) -> Path:
        """Returns the run's folder."""
        if self.folder is not None:
            return Path(self.folder)
        return Path(self.root) / self.study / self.method / f"seed={seed}"


@dataclass(frozen=True)
class WandbOptions:
    """How the run is logged to Weights & Biases.

    Args:
        offline: Write the run into the run folder only; ``wandb sync FOLDER`` uploads it later.
        project: W&B project.
        entity: W&B user or team.
        tags: Tags of the run.
        enabled: With false there is no W&B run at all.
    """

    offline: bool = True
    project: str = "riskft"
    entity: str | None = None
    tags: list[str] | None = None
    enabled: bool = True


def refuse_finished(folder: Path, overwrite: bool, resuming: bool) -> None:
    """Raises InputError if ``fit`` would start anew in a folder that holds what a training has left."""
    left = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("cases.csv"), *folder.glob("metrics.csv")]
    if strange := [f"{path}: is a folder, expected a file. Move it away." for path in left if path.is_dir()]:
        raise InputError("The run folder holds what no run has written:", strange)
    if any(path.stat().st_size for path in left) and not overwrite and not resuming:
        raise InputError(
            f"{folder} already holds a run. Resume it with --ckpt_path last, start anew with --run.overwrite true, or "
            "choose another run.study, run.method or seed_everything."
        )


def recorded_folder(config: Mapping[str, Any]) -> Path | None:
    """Returns where a run was when its config was written, or None if it does not say.

    Args:
        config: Content of a run's ``config.yaml``.
    """
    options, seed = config.get("run"), config.get("seed_everything")
    if not isinstance(options, dict):
        return None
    if given := (config.get("trainer") or {}).get("default_root_dir"):
        return Path(given)
    known = {field.name: options[field.name] for field in fields(RunOptions) if field.name in options}
    return RunOptions(**known).path(seed) if isinstance(seed, int) else None


def run_id(folder: Path, renew: bool) -> str:
    """Returns the W&B id kept in the run folder, which a resumed run shares with the run that it goes on with.

    It goes along when the folder is moved. A copy gets one of its own, so that it does not write into the W&B run of
    the original.

    Args:
        folder: The run folder.
        renew: Make a new one, for a new run. Where there is one, it stays until ``keep_run_id``, because the
            command may yet be refused.
    """
    path = folder / "wandb_id"
    if renew and path.is_file():
        return _new_id(folder)
    if not path.is_file() or _is_copy(folder):
        write_text(path, _new_id(folder))
    return read_text(path).strip()


def keep_run_id(folder: Path, name: str) -> None:
    """Keeps the W&B id of a new run in its folder, where it replaces the one of the run before."""
    if not (folder / "wandb_id").is_file() or run_id(folder, renew=False) != name:
        write_text(folder / "wandb_id", name)


def _new_id(folder: Path) -> str:
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(folder.parts[-3:]))[-40:].strip("-")
    return f"{readable}-{uuid.uuid4().hex[:8]}"


def _is_copy(folder: Path) -> bool:
    """Whether the run that the folder's config was written for is elsewhere, with the same W&B id."""
    original = recorded_folder(read_config(folder))
    if original is None or not (original / "wandb_id").is_file() or original.samefile(folder):
        return False
    return (original / "wandb_id").read_bytes() == (folder / "wandb_id").read_bytes()


def clear_for_new_start(folder: Path) -> None:
    """Removes what a new run would leave beside its own: checkpoints, panels and scores."""
    for name in ("checkpoints", "heatmaps"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in [*folder.glob("cases*.csv"), *folder.glob("metrics*.csv"), *folder.glob(RECORD)]:
        path.unlink()


def run_name(folder: Path) -> tuple[str, str, int]:
    """Returns a run's study, method and seed, by its config or else by its folder's name.

    Raises:
        InputError: If neither says the seed.
    """
    config = read_config(folder)
    options = config.get("run") or {}
    *_, study, method, name = ("", "", "", *folder.resolve().parts)
    seed = config.get("seed_everything")
    if not isinstance(seed, int) or isinstance(seed, bool):  # `true` stands for a seed that Lightning draws
        if (found := SEED_FOLDER.search(name)) is None:
            raise InputError(f"{folder}: config.yaml has no seed_everything, and the folder is not called seed=<n>.")
        seed = int(found[1])
    return str(options.get("study") or study), str(options.get("method") or method), seed


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a run's config; empty where there is none."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}: is no YAML ({' '.join(str(error).split())}).") from error
    return content if isinstance(content, dict) else {}


def git_commit(file: Path = Path(__file__)) -> str:
    """Returns the commit of the checkout that the code runs from (``-dirty`` if changed), or ``unknown``.

    Git looks for a repository in the folders above too. That of an installed package is another one's: the repository
    must have the file.

    Args:
        file: A file of the code.
    """
    # what a hook of another repository sets
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def maps_of(folder: Path, summary: Mapping[str, Any]) -> Path | None:
    """Returns the folder of a run's maps in the risk store, or None if the summary does not say.

    The store may have been moved along with the run, or only one of them.

    Args:
        folder: The run folder.
        summary: Its ``risk/summary.json``.
    """
    along = folder.resolve() / "risk" / str(summary.get("maps_from_here", "nowhere"))
    if along.is_dir():
        return along.resolve()
    return Path(summary["maps"]) if summary.get("maps") else None
