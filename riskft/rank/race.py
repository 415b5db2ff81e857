"""A race of candidates by successive halving: each is trained for a part of its steps, and the better half goes on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from riskft.errors import InputError, refuse
from riskft.files import safe_name
from riskft.rank.candidates import Candidate
from riskft.rank.decision import Rung, decide, going_on, ranking, steps_text
from riskft.rank.race_folds import race_folds
from riskft.rank.race_result import Course, RaceResult
from riskft.rank.race_runners import cluster_runner, local_runner
from riskft.rank.race_runs import Entry, Mark, dice_of, marks_at, read_marks, refuse_other_runs, run_rung
from riskft.sweep.local import CommandLine
from riskft.sweep.slurm import SlurmOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RaceOptions:
    """How candidates are raced.

    Args:
        out: Folder of the results; the runs are in ``race`` inside it.
        rungs: Fractions of the steps after which the candidates are scored and the better half goes on, ascending.
        budget: Limit on the steps of all candidates together, the winner's included, in units of one complete
            fine-tuning; fewer than half go on if more would exceed it. All candidates are trained to the first rung
            whatever it costs.
        finish: Train the winner to its end.
        jobs: Candidates trained at a time on this machine.
        slurm: What each run requests from a SLURM cluster, to train there.

    Raises:
        InputError: If ``rungs`` or ``jobs`` is unusable.
    """

    out: Path
    rungs: list[float] = field(default_factory=lambda: [0.125, 0.25, 1.0])
    budget: float = 2.0
    finish: bool = True
    jobs: int = 1
    slurm: SlurmOptions | None = None

    def __post_init__(self) -> None:
        problems, rungs = [], self.rungs
        if not rungs or rungs != sorted(set(rungs)) or not all(0 < at <= 1 for at in rungs):
            problems.append(f"rungs is {rungs}, expected ascending fractions of the steps such as [0.125, 0.25, 1.0]")
        if self.jobs < 1:
            problems.append(f"jobs is {self.jobs}, expected 1 or more")
        refuse("The race cannot start:", problems)


def run_race(candidates: Sequence[Candidate], options: RaceOptions, command_line: CommandLine) -> RaceResult:
    """Races candidates and returns who wins, and what the decision cost.

    Candidates are scored by their mean Dice on the validation cases or, if there are none, on the labelled cases that
    up to four trainings of each candidate leave out in turn; the winner is then trained on all cases. A candidate that
    fails is out of the race. What was trained in the same folder before is not trained again, so a race that was
    stopped goes on.

    Args:
        candidates: The candidates, whose trainings have the same labelled cases.
        options: Where and how.
        command_line: ``riskft.cli.main``.

    Raises:
        InputError: If there are fewer than two candidates, the folder holds other runs, there are no cases to score,
            or all candidates fail.
    """
    _check(candidates)
    race = _Race(candidates, options, command_line)
    alive = [candidate.name for candidate in candidates]
    dropped: list[str] = []  # the best first
    for at, following in pairwise([*options.rungs, 1.0]):
        if len(alive) <= 1:
            break
        alive = race.score(alive, at)
        while not alive and dropped:
            alive = race.score([dropped.pop(0)], at)
        count = race.going_on(len(alive), at, following)
        alive, dropped = alive[:count], [*alive[count:], *dropped]
    standing = [*alive, *dropped]
    while options.finish and standing and not race.finished(standing[0]):
        standing.pop(0)
    if not standing:
        raise InputError("No candidate is left in the race:", [f"{name}: {why}" for name, why in race.failed.items()])
    return race.result(standing[0])


class _Race:
    """A race under way."""

    def __init__(self, candidates: Sequence[Candidate], options: RaceOptions, command_line: CommandLine) -> None:
        self.options = options
        self.failed: dict[str, str] = {}
        self._scores: dict[float, dict[str, list[Mark]]] = {}
        root = Path(options.out) / "race"
        self.runner = cluster_runner(root, options.slurm) if options.slurm else local_runner(options.jobs, command_line)
        self._whole = {
            one.name: Entry(one.name, root / safe_name(one.name), tuple(one.arguments)) for one in candidates
        }
        folds = race_folds(candidates[0].arguments)
        self.folds = len(folds)
        self._entries = {name: [entry] for name, entry in self._whole.items()}
        if folds:
            self._entries = {
                name: [
                    Entry(name, root / f"fold={number}" / entry.folder.name, (*entry.arguments, *fold.arguments()))
                    for number, fold in enumerate(folds)
                ]
                for name, entry in self._whole.items()
            }
        every = [entry for entries in self._entries.values() for entry in entries]
        refuse_other_runs([*every, *self._whole.values()] if folds else every)

    def score(self, names: Sequence[str], at: float) -> list[str]:
        """Trains candidates to a rung; returns those with a score, best first."""
        log.info("The race, %s: %s", steps_text(at), ", ".join(names))
        entries = [entry for name in names for entry in self._entries[name]]
        self.failed |= run_rung(entries, at, self.runner)
        scores = self._scores.setdefault(at, {})
        for name in names:
            if name in self.failed:
                continue
            try:
                scores[name] = marks_at(self._entries[name], at)
            except InputError as error:
                self.failed[name] = str(error)
        cases = {name: set(dice_of(marks)) for name, marks in scores.items()}
        for name, own in list(cases.items()):
            if own != (first := next(iter(cases.values()))):
                self.failed[name] = f"it was scored on other cases or classes ({_few(own ^ first)})"
                del scores[name]
        order = ranking(self._rung(at))
        for name, mean in order:
            if name in names:
                log.info("%s: validation Dice %.3f at step %d", name, mean, scores[name][0].step)
        return [name for name, _ in order if name in names]

    def going_on(self, count: int, at: float, following: float) -> int:
        """Returns how many of the candidates with a score go on to the following rung."""
        if following <= at:
            return count
        # by the scores, not by what lies on the disk: a race that goes on must decide as it did before
        last = {name: marks for scores in self._scores.values() for name, marks in scores.items()}
        spent = sum(mark.step / mark.steps for marks in last.values() for mark in marks)
        left = self.options.budget - spent
        if self.folds:  # the winner then starts again, with all cases
            return going_on(count, left, self.folds * (following - at), 1.0)
        return going_on(count, left, following - at, 1 - following)

    def finished(self, name: str) -> bool:
        """Trains a candidate on all cases to its end; returns whether that succeeded."""
        self.failed |= run_rung([self._whole[name]], 1.0, self.runner)
        if name not in self.failed and not self.folds:
            try:
                self._scores.setdefault(1.0, {})[name] = marks_at(self._entries[name], 1.0)
            except InputError as error:  # trained to its end by hand, for example; its earlier scores have decided
                log.warning("%s", error)
        return name not in self.failed

    def result(self, winner: str) -> RaceResult:
        """Returns the outcome."""
        rungs = [self._rung(at) for at in sorted(self._scores)]
        decision = decide([rung for rung in rungs if winner in rung.dice], winner)
        courses = [self._course(name, winner) for name in self._whole]
        return RaceResult(decision, rungs, courses, self.folds)

    def _rung(self, at: float) -> Rung:
        return Rung(at, {name: dice_of(marks) for name, marks in self._scores[at].items() if name not in self.failed})

    def _spent(self, name: str) -> tuple[float, float]:
        """Returns the steps, in whole fine-tunings, and the seconds of all of a candidate's runs."""
        last = [marks[-1] for entry in self._entries[name] if (marks := read_marks(entry.folder))]
        cost, seconds = sum(mark.step / mark.steps for mark in last), sum(mark.seconds for mark in last)
        if self.folds and self._whole[name].has_run_to(1.0):  # without validation it keeps no scores, nor its time
            seconds += seconds / cost if cost else 0.0
            cost += 1
        return cost, seconds

    def _course(self, name: str, winner: str) -> Course:
        marks = {at: scores[name] for at, scores in sorted(self._scores.items()) if name in scores}
        outcome = "won" if name == winner else f"dropped after {steps_text(max(marks))}" if marks else ""
        return Course(name, self._whole[name].folder, marks, self.failed.get(name, outcome), *self._spent(name))


def _check(candidates: Sequence[Candidate]) -> None:
    names = [candidate.name for candidate in candidates]
    problems = [f"{name}: {names.count(name)} candidates have this name" for name in dict.fromkeys(names)
                if names.count(name) > 1]  # fmt: skip
    if len(candidates) < 2:
        given = "only one candidate is" if candidates else "no candidates are"
        problems.append(f"{given} given, expected at least two")
    refuse("The race cannot start:", problems)


def _few(keys: set[tuple[str, str]]) -> str:
    return ", ".join(sorted({subject for subject, _ in keys})[:3])
