"""The runs of a race: each candidate's fine-tuning, from one pause to the next."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from riskft.errors import InputError, refuse
from riskft.files import read_rows
from riskft.rank.decision import steps_text
from riskft.rank.race_runners import Runner
from riskft.run.folder import RunFolder
from riskft.sweep.plan import Run
from riskft.sweep.state import read_run, steps_done, without_root

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One run of a candidate: its only one, or one for each group of cases that is left out."""

    candidate: str  #: The candidate's name.
    folder: Path  #: The run folder.
    arguments: tuple[str, ...]  #: What ``riskft fit`` gets, without the pause.

    def run_to(self, at: float) -> Run:
        """Returns the planned run that goes on to a fraction of its steps."""
        pause = ["--trainer.callbacks+=riskft.PauseAt"]
        if at < 1:  # panels of candidates that drop out would only take time
            pause += [f"--trainer.callbacks.at={at!r}", "--trainer.drop_callbacks=[riskft.RiskPanelCallback]"]
        named = [f"--run.method={self.candidate}", f"--run.folder={self.folder}"]
        return Run(str(self.folder), [*self.arguments, *pause, *named], {"at": at}, tested=False)

    def has_run_to(self, at: float) -> bool:
        """Whether the run has made this fraction of its steps."""
        if not RunFolder(self.folder).plan.is_file():
            return False
        then = float(read_run(self.folder).values.get("at", 0))
        return then > at or (then == at and "fit" in steps_done(self.folder))


@dataclass(frozen=True)
class Mark:
    """The scores of a run at one of its pauses, or at its end."""

    at: float  #: The fraction of the steps at which it was to pause.
    step: int  #: The step at which it did, the end of an epoch.
    steps: int  #: All steps of the run.
    seconds: float  #: What the run had taken.
    dice: Mapping[tuple[str, str], float]  #: Dice by validation case and class; NaN where there is none.

    def reaches(self, at: float) -> bool:
        """Whether the scores are those of a rung: the run was to pause there, or an earlier pause was late enough."""
        return self.at == at or self.step >= max(1, round(at * self.steps))


def refuse_other_runs(entries: Sequence[Entry]) -> None:
    """Raises InputError if a folder holds a run that no race started, or one with other options."""
    problems = []
    for entry in entries:
        own = RunFolder(entry.folder)
        if not own.plan.is_file():
            if own.config.is_file():
                problems.append(f"{entry.folder} holds a run that no race started")
            continue
        then = read_run(entry.folder)
        now = entry.run_to(float(then.values.get("at", 0)))
        before, planned = (without_root(run.arguments) for run in (then, now))
        if before != planned:
            gone, new = ([part for part in a if part not in b] for a, b in ((before, planned), (planned, before)))
            problems.append(
                f"{entry.folder} was run with {' '.join(gone) or 'nothing'} where this race has "
                f"{' '.join(new) or 'nothing'}"
            )
    refuse("Choose another --out, or remove these folders:", problems)


def run_rung(entries: Sequence[Entry], at: float, runner: Runner) -> dict[str, str]:
    """Trains all entries up to a fraction of their steps; returns why candidates failed, by name.

    What earlier races or this one have trained already is not repeated.
    """
    due = {entry.folder: entry for entry in entries if not entry.has_run_to(at)}
    reasons: dict[str, str] = {}
    for run, state in runner([entry.run_to(at) for entry in due.values()]):
        name = due[Path(run.folder)].candidate
        if state.name != "finished":
            reasons[name] = state.reason or state.name
            log.warning("%s is out of the race: %s (%s)", name, reasons[name], RunFolder(Path(run.folder)).log)
    return reasons


def read_marks(folder: Path) -> list[Mark]:
    """Returns a run's scores at its pauses, in the order of the steps; raises InputError if the table is broken."""
    path = RunFolder(folder).validation
    if not path.is_file():
        return []
    found: dict[int, Mark] = {}
    try:
        for row in read_rows(path):
            step = int(row["step"])
            head = float(row["at"]), step, int(row["steps"]), float(row["seconds"])
            before = found[step].dice if step in found else {}
            found[step] = Mark(*head, {**before, (row["subject"], row["class_name"]): float(row["dice"])})
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: is not a table that riskft.PauseAt wrote ({error}). Remove {folder}.") from error
    return list(found.values())


def marks_at(entries: Sequence[Entry], at: float) -> list[Mark]:
    """Returns the score of each entry after a fraction of the steps.

    Pauses in the same epoch are one, under the earlier fraction. Raises InputError if an entry has no score there, for
    example because it had made those steps before without a pause.
    """
    marks = []
    for entry in entries:
        past = [mark for mark in read_marks(entry.folder) if mark.at <= at]
        if not past or not past[-1].dice or not past[-1].reaches(at):
            raise InputError(
                f"{entry.folder} has no validation scores after {steps_text(at)}. If an earlier race "
                "had other rungs, choose another --out."
            )
        marks.append(past[-1])
    return marks


def dice_of(marks: Sequence[Mark]) -> dict[tuple[str, str], float]:
    """Returns the Dice of the cases of several marks together."""
    return {key: value for mark in marks for key, value in mark.dice.items()}
