"""Pairs two methods by case, class and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from riskft.analysis.runs import RunScores

Matrix = npt.NDArray[np.float64]
MEAN = "mean of classes"  #: The mean over a case's classes with a value in both runs.


@dataclass(frozen=True)
class PairedScores:
    """Scores of a method and its baseline for one class, (seeds, cases) each, NaN in both where there is no pair."""

    class_name: str  #: The class, or ``MEAN``.
    seeds: tuple[int, ...]  #: The seed of each row.
    subjects: tuple[str, ...]  #: The case of each column.
    baseline: Matrix  #: The baseline's scores.
    other: Matrix  #: The method's scores.

    @property
    def differences(self) -> Matrix:
        """Method - baseline, (seeds, cases)."""
        return self.other - self.baseline


@dataclass(frozen=True)
class Unpaired:
    """A run, case or class without a partner."""

    study: str
    method: str
    baseline: str  #: The method that it is compared with.
    seed: int
    subject: str  #: The case, or empty for the whole run.
    class_name: str  #: The class, or empty for all classes.
    reason: str  #: What is missing.

    def __str__(self) -> str:
        what = ", ".join(part for part in (f"seed {self.seed}", self.subject, self.class_name) if part)
        return f"{self.study}: {self.method} against {self.baseline}: {what}: {self.reason}"


def pair(baseline: Sequence[RunScores], other: Sequence[RunScores]) -> tuple[list[PairedScores], list[Unpaired]]:
    """Pairs the runs of two methods of a study, given at least one of each and at most one per seed.

    Returns the scores by class, after the mean over classes if there are several, and everything without a partner.
    """
    first, second = ({run.seed: run.scores for run in runs} for runs in (baseline, other))
    seeds = sorted(first.keys() & second.keys())
    everything = [run.scores for run in (*baseline, *other)]
    classes = list(dict.fromkeys(name for scores in everything for _, name in scores))
    subjects = sorted({subject for scores in everything for subject, _ in scores})
    shape = (len(classes), len(seeds), len(subjects))
    values = np.full((2, *shape), np.nan)
    for side, runs in enumerate((first, second)):
        for (i, name), (j, seed), (k, subject) in product(enumerate(classes), enumerate(seeds), enumerate(subjects)):
            values[side, i, j, k] = runs[seed].get((subject, name), np.nan)
    values[:, np.isnan(values).any(0)] = np.nan
    result = [PairedScores(name, tuple(seeds), tuple(subjects), *values[:, i]) for i, name in enumerate(classes)]
    if len(classes) > 1:
        result.insert(0, PairedScores(MEAN, tuple(seeds), tuple(subjects), *map(_mean_over_classes, values)))
    return result, _unpaired(baseline, other)


def _mean_over_classes(values: Matrix) -> Matrix:
    """Returns the mean over the first axis without NaN; NaN if all values are."""
    present = ~np.isnan(values)
    count = present.sum(0)
    total = np.where(present, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _unpaired(baseline: Sequence[RunScores], other: Sequence[RunScores]) -> list[Unpaired]:
    first, second = ({run.seed: run.scores for run in runs} for runs in (baseline, other))
    names = (other[0].study, other[0].method, baseline[0].method)
    missing = []
    for seed in sorted(first.keys() | second.keys()):
        if seed not in first or seed not in second:
            lacking = names[1] if seed in first else names[2]
            missing.append(Unpaired(*names, seed, "", "", f"no run of {lacking}"))
            continue
        mine, theirs = second[seed], first[seed]
        subjects = ({subject for subject, _ in scores} for scores in (theirs, mine))
        lonely = set.symmetric_difference(*subjects)
        for subject in sorted(lonely):
            lacking = names[1] if any(key[0] == subject for key in theirs) else names[2]
            missing.append(Unpaired(*names, seed, subject, "", f"not in the cases of {lacking}"))
        for key in dict.fromkeys((*theirs, *mine)):
            if key[0] not in lonely and (reason := _no_value(theirs.get(key), mine.get(key), names[2], names[1])):
                missing.append(Unpaired(*names, seed, *key, reason))
    return missing


def _no_value(first: float | None, second: float | None, baseline: str, other: str) -> str:
    """Says which of the two has no value; empty if both have one."""
    empty = [name for name, value in ((baseline, first), (other, second)) if value is None or np.isnan(value)]
    if len(empty) == 2:
        return "no value in either (the class is in neither label nor prediction)"
    return f"no value in {empty[0]}" if empty else ""
