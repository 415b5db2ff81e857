"""The outcome of a race, and its files."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riskft.analysis.curves import LearningCurve, read_curve
from riskft.files import csv_text, write_json, write_text
from riskft.plots.figure import save_figure
from riskft.plots.race import race_figure
from riskft.rank.decision import Decision, Gain, Rung, case_means
from riskft.rank.race_runs import Mark, dice_of
from riskft.training.plan import in_words

COLUMNS = ("candidate", "rung", "step", "case", "class", "dice")


@dataclass(frozen=True)
class Course:
    """What became of a candidate."""

    name: str
    folder: Path  #: Its run folder.
    marks: dict[float, list[Mark]]  #: Its scores by rung: one, or one for each group of cases that was left out.
    outcome: str  #: ``won``, ``dropped after 1/8 of the steps``, or why it failed.
    cost: float  #: The steps it made, in whole fine-tunings.
    seconds: float  #: The time that they took.

    def dice(self, at: float) -> float:
        """Returns the mean Dice at a rung, over cases, of each case's mean over classes; NaN if there is none."""
        means = case_means({self.name: dice_of(self.marks.get(at, ()))})[self.name]
        return float(means.mean()) if means.size else math.nan

    def curve(self) -> LearningCurve:
        """Returns the mean Dice at each rung by step."""
        steps = tuple(marks[0].step for marks in self.marks.values())
        return LearningCurve(steps, tuple(self.dice(at) for at in self.marks))


@dataclass(frozen=True)
class RaceResult:
    """The outcome of a race."""

    decision: Decision
    rungs: list[Rung]  #: The scores, without candidates that failed.
    courses: list[Course]  #: All candidates, in the order in which they were given.
    folds: int  #: Groups of cases that were left out in turn; 0 if the validation cases were scored.

    @property
    def winner(self) -> Course:
        """The winner."""
        return next(course for course in self.courses if course.name == self.decision.winner)

    @property
    def cost(self) -> float:
        """The steps of all candidates, in whole fine-tunings."""
        return sum(course.cost for course in self.courses)

    @property
    def seconds(self) -> float:
        """The time that all runs took."""
        return sum(course.seconds for course in self.courses)

    def sentences(self) -> list[str]:
        """Says who won, by how much, and what the decision cost."""
        return [
            *self.decision.sentences(),
            f"The race took as many steps as {self.cost:.2f} fine-tunings ({in_words(self.seconds)}), of which "
            f"{self.winner.cost:.2f} ({in_words(self.winner.seconds)}) are the winner's own.",
        ]

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yields one row per candidate, rung, case and class, under ``COLUMNS``."""
        for course in self.courses:
            for at, marks in course.marks.items():
                for mark in marks:
                    yield from ((course.name, at, mark.step, *key, value) for key, value in mark.dice.items())

    def plain(self) -> dict[str, Any]:
        """Returns the outcome as plain values for JSON."""
        decision = self.decision
        return {
            "winner": decision.winner,
            "dice": _number(decision.dice),
            "at": decision.at,
            "runner_up": _plain_gain(decision.runner_up),
            "scratch": _plain_gain(decision.scratch),
            "text": self.sentences(),
            "folds": self.folds,
            "cost": {"fine_tunings": self.cost, "seconds": self.seconds},
            "candidates": [
                {
                    "name": course.name,
                    "folder": str(course.folder),
                    "outcome": course.outcome,
                    "dice": {str(at): _number(course.dice(at)) for at in course.marks},
                    "fine_tunings": course.cost,
                    "seconds": course.seconds,
                }
                for course in self.courses
            ],
        }

    def write(self, out: Path) -> None:
        """Writes ``race.csv``, ``race.json`` and ``race.png``."""
        write_text(out / "race.csv", csv_text(COLUMNS, self.rows()))
        write_json(out / "race.json", self.plain())
        marks = {course.name: course.curve() for course in self.courses if course.marks}
        curves = {name: LearningCurve((), ()) for name in marks}
        if not self.folds:
            curves = {course.name: _validations(course.folder) for course in self.courses if course.marks}
        save_figure(race_figure(marks, curves, self.decision.winner), out / "race.png")


def _validations(folder: Path) -> LearningCurve:
    """Returns all validations of a run, after so many steps; Lightning logs them under the last step, from 0."""
    curve = read_curve(folder, "val/dice")
    return LearningCurve(tuple(step + 1 for step in curve.steps), curve.values)


def _plain_gain(gain: Gain | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    plain = {name: _number(value) if isinstance(value, float) else value for name, value in asdict(gain).items()}
    return {**plain, "separable": gain.separable}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
