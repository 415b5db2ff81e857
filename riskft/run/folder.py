"""The folder of a run, whose files only this file names, and the options of its place, name and logging."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from riskft.errors import InputError, refuse
from riskft.files import earlier, json_or_none, read_text, safe_name
from riskft.run.lock import held
from riskft.run.record import Record, read_record
from riskft.run.risk import RunRisk


@dataclass(frozen=True)
class RunOptions:
    """Where a run goes and what it is called; W&B gets the same names.

    The folder is ``<root>/<study>/<method>/seed=<n>`` and holds ``config.yaml``, ``checkpoints``, ``risk``,
    ``heatmaps``, ``cases.csv``, ``metrics.csv``, ``predictions``, ``estimate.json`` and ``wandb``.

    Args:
        root: Folder of all runs.
        study: Name of the comparison; runs of a study share a W&B group.
        method: Name of the training method; the W&B job type.
        folder: The run's folder, instead of the one made of the options above.
        overwrite: Let ``fit`` start again in a folder that holds a run. To resume the run, use ``--ckpt_path last``.
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
        offline: Write to the run folder only; ``wandb sync FOLDER`` uploads the run later.
        project: W&B project.
        entity: W&B user or team.
        tags: Tags of the run.
        enabled: Whether there is a W&B run at all.
    """

    offline: bool = True
    project: str = "riskft"
    entity: str | None = None
    tags: list[str] | None = None
    enabled: bool = True


SEED_FOLDER = re.compile(r"seed=(\d+)$")


class RunFolder:
    """A run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path  #: The folder, which need not exist yet.
        self.config = path / "config.yaml"  #: All options of the run; every command accepts the file.
        self.record = path / "record.json"  #: How the weights were made, see ``riskft.run.record``.
        self.checkpoints = path / "checkpoints"  #: The folder of the checkpoints.
        self.best = self.checkpoints / "best.ckpt"  #: The checkpoint with the best validation score.
        self.last = self.checkpoints / "last.ckpt"  #: The checkpoint of the last epoch.
        self.adaptation = path / "adaptation.csv"  #: What became of each parameter of the source.
        #: The curves since training last started; earlier ones are next to it, see ``riskft.files.earlier``.
        self.metrics = path / "metrics.csv"
        self.cases = path / "cases.csv"  #: The scores of the test cases.
        self.validation = path / "validation.csv"  #: The validation cases' scores at each `riskft.PauseAt`.
        self.predictions = path / "predictions"  #: Where ``predict`` writes by default.
        self.estimate = path / "estimate.json"  #: The calibration of the expected risk, see ``riskft.estimate``.
        self.heatmaps = path / "heatmaps"  #: The folder of the panels.
        self.risk = RunRisk(path / "risk")  #: The results of phase 1.
        self.wandb = path / "wandb"  #: Where W&B keeps its own files.
        self.wandb_id = path / "wandb_id"  #: The run's name in W&B.
        self.requeue = path / "requeue.json"  #: How often the run hit a cluster's time limit without progress.
        #: Locked by the process that trains in the folder; in a sweep, while it also holds ``sweep_lock``.
        self.lock = path / ".lock"
        self.plan = path / "sweep.json"  #: The run as a sweep planned it, and which of its commands are done.
        self.log = path / "log.txt"  #: The output of a sweep's commands.
        self.failure = path / "failed.txt"  #: Why a command of a sweep failed.
        self.sweep_lock = path / "run.lock"  #: Locked by the process that runs a command of a sweep.

    def panel(self, kind: str, subject: str) -> Path:
        """Returns the file of a case's panel; ``kind`` is ``train``, ``val`` or ``test``."""
        return self.heatmaps / f"{kind}_{safe_name(subject)}.png"

    def read_config(self) -> dict[str, Any]:
        """Returns the run's config; empty if there is none."""
        if not self.config.is_file():
            return {}
        try:
            content = yaml.safe_load(read_text(self.config))
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(f"{self.config}: is not YAML ({' '.join(str(error).split())}).") from error
        return content if isinstance(content, dict) else {}

    def read_record(self) -> Record | None:
        """Returns how the weights were made; None if the record is missing or damaged."""
        return read_record(json_or_none(self.record))

    def name(self) -> tuple[str, str, int]:
        """Returns study, method and seed, from the config or the folder's name; raises InputError without a seed."""
        config = self.read_config()
        options = config.get("run") or {}
        *_, study, method, last = ("", "", "", *self.path.resolve().parts)
        seed = config.get("seed_everything")
        if not isinstance(seed, int) or isinstance(seed, bool):  # `true` means that Lightning draws a seed
            if (found := SEED_FOLDER.search(last)) is None:
                raise InputError(
                    f"{self.path}: config.yaml has no seed_everything, and the folder is not called seed=<n>."
                )
            seed = int(found[1])
        return str(options.get("study") or study), str(options.get("method") or method), seed

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder for training, or raises InputError if another process does; removes half-written files."""
        with held(self.lock):
            for left in (*self.path.glob(".tmp-*"), *self.checkpoints.glob(".tmp-*")):
                if left.is_file():
                    left.unlink(missing_ok=True)
            yield

    def refuse_finished(self, overwrite: bool, resuming: bool) -> None:
        """Raises InputError if ``fit`` would start again in a folder that holds a run."""
        left = [path for path in (*self.checkpoints.glob("*.ckpt"), self.cases, self.metrics) if path.exists()]
        strange = [f"{path}: is a folder, expected a file. Move it away." for path in left if path.is_dir()]
        refuse("The run folder holds folders where a run writes files:", strange)
        if any(path.stat().st_size for path in left) and not overwrite and not resuming:
            raise InputError(
                f"{self.path} already holds a run. Resume it with --ckpt_path last, start again with --run.overwrite "
                "true, or choose another run.study, run.method or seed_everything."
            )

    def clear(self) -> None:
        """Removes an earlier run's checkpoints, panels, scores and record."""
        for folder in (self.checkpoints, self.heatmaps):
            shutil.rmtree(folder, ignore_errors=True)
        tables = [path for table in (self.cases, self.metrics) for path in (table, *earlier(table))]
        for path in (*tables, self.validation, self.record, self.estimate):
            path.unlink(missing_ok=True)


class PredictionFolder:
    """What ``predict --expected_risk`` adds to the segmentations in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases = path / "cases.csv"  #: The cases by expected risk, with their estimated Dice.
        self.itk_snap_labels = path / "labels.txt"  #: Names and colours of the classes for ITK-SNAP.
        self.slicer_labels = path / "labels.ctbl"  #: The same for 3D Slicer.

    def expected_risk(self, subject: str) -> Path:
        """Returns the map of a case: P(wrong) of every voxel, on the scan's own grid."""
        return self.path / f"{safe_name(subject)}_expected_risk.nii.gz"


def recorded_folder(config: Mapping[str, Any]) -> Path | None:
    """Returns where a run was when its ``config.yaml`` was written, or None if the config does not say."""
    options, seed = config.get("run"), config.get("seed_everything")
    if not isinstance(options, dict):
        return None
    if given := (config.get("trainer") or {}).get("default_root_dir"):
        return Path(given)
    known = {field.name: options[field.name] for field in fields(RunOptions) if field.name in options}
    return RunOptions(**known).path(seed) if isinstance(seed, int) else None
