"""One folder per run. This file alone knows the names of the files in it."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError
from riskft.files import earlier, read_text, safe_name
from riskft.run.lock import held
from riskft.run.options import RunOptions
from riskft.run.risk import RunRisk

SEED_FOLDER = re.compile(r"seed=(\d+)$")


@dataclass(frozen=True)
class RunFolder:
    """A run's folder.

    Args:
        path: The folder, which need not exist yet.
    """

    path: Path

    # -- names -------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Path:
        """All options of the run, which every command accepts again."""
        return self.path / "config.yaml"

    @property
    def record(self) -> Path:
        """What the weights were made with (``riskft.run.record``)."""
        return self.path / "record.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation score."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def adaptation(self) -> Path:
        """What became of each parameter of the source."""
        return self.path / "adaptation.csv"

    @property
    def metrics(self) -> Path:
        """The curves of the training since its last start; see ``riskft.files.earlier`` for those before."""
        return self.path / "metrics.csv"

    @property
    def cases(self) -> Path:
        """The scores of the test cases in the last test."""
        return self.path / "cases.csv"

    @property
    def predictions(self) -> Path:
        """Where ``predict`` writes, unless it is told otherwise."""
        return self.path / "predictions"

    @property
    def heatmaps(self) -> Path:
        """The folder of the panels."""
        return self.path / "heatmaps"

    def panel(self, kind: str, subject: str) -> Path:
        """A case's panel; ``kind`` is ``train``, ``val`` or ``test``."""
        return self.heatmaps / f"{kind}_{safe_name(subject)}.png"

    @property
    def risk(self) -> RunRisk:
        """What phase 1 left."""
        return RunRisk(self.path / "risk")

    @property
    def wandb_id(self) -> Path:
        """The run's name in W&B."""
        return self.path / "wandb_id"

    @property
    def wandb(self) -> Path:
        """Where W&B keeps its own files."""
        return self.path / "wandb"

    @property
    def requeue(self) -> Path:
        """How often a cluster's time limit ended the run without progress."""
        return self.path / "requeue.json"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains in the folder; for a sweep inside ``sweep_lock``."""
        return self.path / ".lock"

    @property
    def plan(self) -> Path:
        """What a sweep planned, and which of its commands are done."""
        return self.path / "sweep.json"

    @property
    def log(self) -> Path:
        """What the commands of a sweep printed."""
        return self.path / "log.txt"

    @property
    def failure(self) -> Path:
        """Why a command of a sweep failed."""
        return self.path / "failed.txt"

    @property
    def sweep_lock(self) -> Path:
        """Locked by the process that runs a command of a sweep in the folder."""
        return self.path / "run.lock"

    # -- contents ----------------------------------------------------------------------------------------------------

    def read_config(self) -> dict[str, Any]:
        """Returns the run's config; empty where there is none."""
        if not self.config.is_file():
            return {}
        try:
            content = yaml.safe_load(read_text(self.config))
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(f"{self.config}: is not YAML ({' '.join(str(error).split())}).") from error
        return content if isinstance(content, dict) else {}

    def name(self) -> tuple[str, str, int]:
        """Returns the run's study, method and seed, from its config or else from its folder's name.

        Raises:
            InputError: If neither says the seed.
        """
        config = self.read_config()
        options = config.get("run") or {}
        *_, study, method, last = ("", "", "", *self.path.resolve().parts)
        seed = config.get("seed_everything")
        if not isinstance(seed, int) or isinstance(seed, bool):  # `true` stands for a seed that Lightning draws
            if (found := SEED_FOLDER.search(last)) is None:
                raise InputError(
                    f"{self.path}: config.yaml has no seed_everything, and the folder is not called seed=<n>."
                )
            seed = int(found[1])
        return str(options.get("study") or study), str(options.get("method") or method), seed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the folder for a training, and removes the half-written files of one that was killed.

        Raises:
            InputError: If another process trains there.
        """
        with held(self.lock):
            for left in (*self.path.glob(".tmp-*"), *self.checkpoints.glob(".tmp-*")):
                if left.is_file():
                    left.unlink(missing_ok=True)
            yield

    def refuse_finished(self, overwrite: bool, resuming: bool) -> None:
        """Raises InputError if ``fit`` would start again in a folder that holds what a training has left."""
        left = [path for path in (*self.checkpoints.glob("*.ckpt"), self.cases, self.metrics) if path.exists()]
        if strange := [f"{path}: is a folder, expected a file. Move it away." for path in left if path.is_dir()]:
            raise InputError("The run folder holds what no run has written:", strange)
        if any(path.stat().st_size for path in left) and not overwrite and not resuming:
            raise InputError(
                f"{self.path} already holds a run. Resume it with --ckpt_path last, start again with --run.overwrite "
                "true, or choose another run.study, run.method or seed_everything."
            )

    def clear(self) -> None:
        """Removes what a new run would leave next to its own: checkpoints, panels and scores."""
        for folder in (self.checkpoints, self.heatmaps):
            shutil.rmtree(folder, ignore_errors=True)
        tables = [path for table in (self.cases, self.metrics) for path in (table, *earlier(table))]
        for path in (*tables, self.record):
            path.unlink(missing_ok=True)


def recorded_folder(config: Mapping[str, Any]) -> Path | None:
    """Returns where a run was when its config was written, or None if the config does not say.

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
