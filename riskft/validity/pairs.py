"""Pairs fine-tuned runs with runs trained from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riskft.analysis.runs import run_folders, started_from
from riskft.errors import InputError, refuse
from riskft.run.folder import RunFolder
from riskft.training.checkpoints import find_checkpoint


@dataclass(frozen=True)
class RunName:
    """A run folder and its names."""

    folder: Path
    study: str
    method: str
    seed: int

    @property
    def title(self) -> str:
        """Study and method."""
        return f"{self.study}/{self.method}"

    @property
    def varied(self) -> str:
        """What a sweep added to the method's name, for example ``train_limit=4``."""
        return self.method.partition(",")[2]


@dataclass(frozen=True)
class RunPair:
    """A fine-tuned run and the run from scratch of the same study and seed."""

    run: RunName
    scratch: RunName


def find_pairs(runs: Sequence[Path], scratch: Sequence[Path]) -> list[RunPair]:
    """Pairs the runs at and below folders by study and seed; with several from scratch, by the sweep's values too.

    They are sorted by study, method and seed. Raises InputError, with all reasons, if a run has no partner or lacks
    files.
    """
    references = _named(scratch)
    known = {name.folder.resolve() for name in references}
    tuned = [name for name in _named(runs) if name.folder.resolve() not in known]
    problems = [problem for name in tuned for problem in _lacking(name)]
    pairs = []
    for name in tuned:
        found = _partners(name, references)
        if len(found) == 1:
            pairs.append(RunPair(name, found[0]))
        else:
            says = " and ".join(str(other.folder) for other in found) or "none"
            problems.append(
                f"{name.folder}: needs exactly one run from scratch of study {name.study} and seed {name.seed}, but "
                f"--scratch has {says}"
            )
    for name in dict.fromkeys(pair.scratch for pair in pairs):
        problems += _lacking_from_scratch(name)
    if not tuned:
        problems.append("all runs are also given as --scratch: give fine-tuned runs first")
    refuse("These runs do not show whether the map is right:", problems)
    return sorted(pairs, key=lambda pair: (pair.run.study, pair.run.method, pair.run.seed))


def _named(paths: Sequence[Path]) -> list[RunName]:
    return [RunName(folder, *RunFolder(folder).name()) for folder in run_folders(paths)]


def _partners(name: RunName, references: Sequence[RunName]) -> list[RunName]:
    same = [other for other in references if (other.study, other.seed) == (name.study, name.seed)]
    exact = [other for other in same if other.varied == name.varied]
    return exact or [other for other in same if not other.varied]


def _lacking(name: RunName) -> list[str]:
    """Says what a fine-tuned run lacks."""
    problems, run = _untrained(name), RunFolder(name.folder)
    if started_from(name.folder) == "scratch":
        problems.append(
            f"{name.folder}: was trained from scratch, without a source's weights, expected a fine-tuned run"
        )
    elif not (run.risk.summary.is_file() and run.risk.manifest.is_file()):
        problems.append(
            f"{name.folder}: has no risk/summary.json with P(y|z). Fine-tune with phase 1 (riskft.RiskMapCallback), as "
            "configs/method/vanilla.yaml does"
        )
    return problems


def _lacking_from_scratch(name: RunName) -> list[str]:
    problems = _untrained(name)
    if started_from(name.folder) == "source":
        model: dict[str, Any] = RunFolder(name.folder).read_config().get("model") or {}
        checkpoint = (model.get("source") or {}).get("checkpoint")
        problems.append(f"{name.folder}: was not trained from scratch, but from {checkpoint}")
    return problems


def _untrained(name: RunName) -> list[str]:
    run = RunFolder(name.folder)
    if not run.config.is_file():
        return [f"{name.folder}: has no config.yaml. Give a run folder that riskft fit made"]
    try:
        find_checkpoint(run)
    except InputError:
        return [f"{name.folder}: has no checkpoint. Run fit first"]
    return []
