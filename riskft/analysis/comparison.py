"""The table of a comparison, with one row per method and class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from riskft.analysis.pairs import MEAN, Matrix, PairedScores, Unpaired, pair
from riskft.analysis.runs import Metric, RunScores
from riskft.analysis.statistics import bootstrap_interval, holm, interval_over, mean, signed_rank, wins_losses_ties
from riskft.errors import InputError, refuse

NONE = math.nan


@dataclass(frozen=True)
class MetricUnit:
    """How a metric is shown."""

    title: str  #: Its name.
    unit: str  #: The unit of means and differences.
    scale: float  #: Factor from the values in ``cases.csv`` to this unit.
    higher_is_better: bool  #: Whether higher values are better.


UNITS: dict[Metric, MetricUnit] = {
    "dice": MetricUnit("Dice", "Dice points", 100.0, True),
    "hd95_mm": MetricUnit("HD95", "mm", 1.0, False),
}


@dataclass(frozen=True)
class ComparisonRow:
    """A method's result for a class, with means and differences in the metric's unit."""

    study: str
    method: str
    baseline: str  #: The method that it is compared with; the method itself in a baseline's own row.
    class_name: str  #: The class, or ``mean of classes``.
    mean: float  #: The method's mean over all pairs; in a baseline's own row over all its values.
    baseline_mean: float  #: The baseline's mean over the same pairs.
    difference: float  #: mean - baseline_mean.
    low: float  #: Lower end of the difference's 95 % interval.
    high: float  #: Upper end.
    interval_over: str  #: What the bootstrap draws: seeds, cases or both.
    p: float  #: P-value of Wilcoxon's signed-rank test on the cases' means over seeds.
    p_holm: float  #: The same, corrected for the number of methods in the study.
    cases: int  #: Cases with a pair.
    seeds: int  #: Seeds with a pair.
    wins: int  #: Cases where the method is better.
    losses: int  #: Cases where it is worse.
    ties: int  #: Cases where it is equal.

    @property
    def is_baseline(self) -> bool:
        """Whether this is a baseline's own row."""
        return self.method == self.baseline


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison."""

    metric: Metric
    rows: list[ComparisonRow]  #: By study and class, the mean over classes first; baselines before the other methods.
    unpaired: list[Unpaired]  #: What has no partner.

    @property
    def unit(self) -> MetricUnit:
        """How the metric is shown."""
        return UNITS[self.metric]


def compare(runs: Sequence[RunScores], metric: Metric, baseline: str) -> Comparison:
    """Compares each method with its study's baseline.

    A sweep's ``riskft,train_limit=4`` is compared with ``vanilla,train_limit=4`` if there is one, otherwise with
    ``vanilla``. Raises InputError if a method has no baseline in its study, or there is nothing to compare.
    """
    rows: list[ComparisonRow] = []
    unpaired: list[Unpaired] = []
    problems = []
    for study in sorted({run.study for run in runs}):
        methods: dict[str, list[RunScores]] = {}
        for run in runs:
            if run.study == study:
                methods.setdefault(run.method, []).append(run)
        partners = {name: partner(name, baseline, methods) for name in methods}
        if lacking := sorted(name for name, other in partners.items() if other is None):
            problems.append(f"study {study}: no {baseline} for {', '.join(lacking)}")
            continue
        part, missing = _compare_study(methods, {name: str(other) for name, other in partners.items()}, UNITS[metric])
        rows += part
        unpaired += missing
    refuse("Every method needs a baseline in its study. Choose one with --baseline:", problems)
    if all(row.is_baseline for row in rows):
        raise InputError(f"All runs are of the method {baseline}. Give runs of at least two methods.")
    return Comparison(metric, rows, unpaired)


def partner(method: str, baseline: str, methods: Sequence[str] | dict[str, list[RunScores]]) -> str | None:
    """Returns the baseline of a method, or None if there is none; a baseline is its own."""
    _, comma, values = method.partition(",")
    return next((name for name in (f"{baseline}{comma}{values}", baseline) if name in methods), None)


def _compare_study(
    methods: dict[str, list[RunScores]], partners: dict[str, str], unit: MetricUnit
) -> tuple[list[ComparisonRow], list[Unpaired]]:
    rows: list[ComparisonRow] = []
    unpaired: list[Unpaired] = []
    ordered = sorted(methods, key=lambda name: (partners[name] != name, name))
    for name in ordered:
        pairs, missing = pair(methods[partners[name]], methods[name])
        study = methods[name][0].study
        if partners[name] == name:
            rows += [_own_row(study, name, part, unit) for part in pairs]
        else:
            rows += [_row(study, name, partners[name], part, unit) for part in pairs]
            unpaired += missing
    classes = sorted(dict.fromkeys(row.class_name for row in rows), key=lambda name: name != MEAN)
    result = []
    for class_name in classes:
        part = [row for row in rows if row.class_name == class_name]
        result += [replace(row, p_holm=p) for row, p in zip(part, holm([row.p for row in part]), strict=True)]
    return result, unpaired


def _own_row(study: str, method: str, pairs: PairedScores, unit: MetricUnit) -> ComparisonRow:
    own = mean(pairs.other) * unit.scale
    return ComparisonRow(study, method, method, pairs.class_name, own, own, *(NONE,) * 3, "-", NONE, NONE,
               *_counts(pairs.other), 0, 0, 0)  # fmt: skip


def _row(study: str, method: str, baseline: str, pairs: PairedScores, unit: MetricUnit) -> ComparisonRow:
    differences = pairs.differences
    low, high = bootstrap_interval(differences)
    cases, seeds = _counts(differences)
    wins, losses, ties = wins_losses_ties(differences, unit.higher_is_better)
    return ComparisonRow(
        study,
        method,
        baseline,
        pairs.class_name,
        mean=mean(pairs.other) * unit.scale,
        baseline_mean=mean(pairs.baseline) * unit.scale,
        difference=mean(differences) * unit.scale,
        low=low * unit.scale,
        high=high * unit.scale,
        interval_over=interval_over(differences),
        p=signed_rank(differences),
        p_holm=NONE,
        cases=cases,
        seeds=seeds,
        wins=wins,
        losses=losses,
        ties=ties,
    )


def _counts(values: Matrix) -> tuple[int, int]:
    """Returns the numbers of cases and of seeds that have a value."""
    present = ~np.isnan(values)
    return int(present.any(0).sum()), int(present.any(1).sum())


def headline(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """Returns a study's main rows: those of the mean over classes, or of the only class."""
    names = [row.class_name for row in rows]
    return [row for row in rows if row.class_name == (MEAN if MEAN in names else names[0])]
