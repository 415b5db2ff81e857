"""The scores of all runs as tables, with one row per run, seed, target and predictor."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from riskft.analysis.pairs import Matrix
from riskft.analysis.statistics import bootstrap_interval, interval_over, mean
from riskft.files import csv_text
from riskft.validity.pairs import RunName
from riskft.validity.scores import ClassVolumes, PredictorScore, RocCurve

ALL = "all"  #: Stands for the seed in rows over all seeds of a run.
Key = tuple[str, str]


@dataclass(frozen=True)
class RunResult:
    """The results of one run."""

    run: RunName  #: The fine-tuned run.
    cases: Mapping[str, Mapping[Key, PredictorScore]]  #: Scores by target and predictor, by subject.
    pooled: Mapping[Key, PredictorScore]  #: Scores over the voxels of all cases.
    curves: Mapping[str, RocCurve]  #: ROC curves for negative transfer over the voxels of all cases, by predictor.
    volumes: Mapping[str, Sequence[ClassVolumes]]  #: By subject.


@dataclass(frozen=True)
class ValidityRow:
    """A predictor's scores on a target."""

    run: str  #: Study and method.
    seed: str  #: The seed, or ``all`` for several.
    target: str  #: What is predicted.
    predictor: str
    auroc: float  #: Mean of the cases' areas under the ROC curve.
    low: float  #: Lower end of its 95 % interval.
    high: float  #: Upper end.
    pooled_auroc: float  #: Over the voxels of all cases together; for several seeds the mean over seeds.
    ap: float  #: Mean of the cases' average precisions.
    ap_low: float  #: Lower end of its 95 % interval.
    ap_high: float  #: Upper end.
    pooled_ap: float  #: As ``pooled_auroc``.
    prevalence: float  #: Mean share of positive voxels in the cases with a score: what ``ap`` would be by chance.
    pooled_prevalence: float  #: Over the voxels of all cases together: what ``pooled_ap`` would be by chance.
    cases: int  #: Cases with a score (of any seed).
    unscored: int  #: Cases without a score, because all or none of their voxels are positive; summed over seeds.
    interval_over: str  #: What the bootstrap draws: seeds, cases or both.


def table(results: Sequence[RunResult]) -> list[ValidityRow]:
    """Returns the rows of each seed of each run and, if there are several seeds, those over all."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.run.title, []).append(result)
    rows: list[ValidityRow] = []
    for title, group in groups.items():
        parts = [(str(result.run.seed), [result]) for result in group]
        parts += [(ALL, group)] if len(group) > 1 else []
        for seed, part in parts:
            # the row over all seeds needs a predictor that every seed has
            keys = [key for key in part[0].pooled if all(key in result.pooled for result in part)]
            rows += [_row(title, seed, key, part) for key in sorted(keys, key=lambda key: _order(part[0], key))]
    return rows


def _order(result: RunResult, key: Key) -> tuple[int, int]:
    """Sorts by target, then predictor, in the order in which they were scored."""
    places = [list(dict.fromkeys(part)) for part in zip(*result.pooled, strict=True)]
    return places[0].index(key[0]), places[1].index(key[1])


def _row(title: str, seed: str, key: Key, results: Sequence[RunResult]) -> ValidityRow:
    aurocs, aps, prevalences = (_matrix(results, key, name) for name in ("auroc", "ap", "prevalence"))
    scored = ~np.isnan(aurocs)
    entries = sum(len(result.cases) for result in results)
    pooled = [result.pooled[key] for result in results]
    low, high = bootstrap_interval(aurocs)
    ap_low, ap_high = bootstrap_interval(aps)
    return ValidityRow(
        run=title,
        seed=seed,
        target=key[0],
        predictor=key[1],
        auroc=mean(aurocs),
        low=low,
        high=high,
        pooled_auroc=mean(np.array([one.auroc for one in pooled])),
        ap=mean(aps),
        ap_low=ap_low,
        ap_high=ap_high,
        pooled_ap=mean(np.array([one.ap for one in pooled])),
        prevalence=mean(np.where(scored, prevalences, np.nan)),
        pooled_prevalence=mean(np.array([one.prevalence for one in pooled])),
        cases=int(scored.any(0).sum()),
        unscored=int(entries - scored.sum()),
        interval_over=interval_over(aurocs),
    )


def _matrix(results: Sequence[RunResult], key: Key, attribute: str) -> Matrix:
    """Returns a score as (seeds, cases), NaN where a case has no value."""
    subjects = sorted({subject for result in results for subject in result.cases})
    values = [
        [getattr(result.cases[subject][key], attribute) if subject in result.cases else np.nan for subject in subjects]
        for result in results
    ]
    return np.array(values, dtype=np.float64)


def validity_csv(rows: Sequence[ValidityRow]) -> str:
    """Returns all rows as CSV."""
    return csv_text([field.name for field in fields(ValidityRow)], [astuple(row) for row in rows])


def case_scores_csv(results: Sequence[RunResult]) -> str:
    """Returns every case's scores as CSV."""
    columns = ["run", "seed", "subject", "target", "predictor", *(field.name for field in fields(PredictorScore))]
    rows = [
        [result.run.title, result.run.seed, subject, *key, *astuple(score)]
        for result in results
        for subject, scores in result.cases.items()
        for key, score in scores.items()
    ]
    return csv_text(columns, rows)


def volumes_csv(results: Sequence[RunResult]) -> str:
    """Returns every case's volumes by class as CSV, in ml rounded to a tenth of a microlitre."""
    columns = ["run", "seed", "subject", *(field.name for field in fields(ClassVolumes))]
    rows = [
        [result.run.title, result.run.seed, subject, name, *(round(value, 7) for value in values)]
        for result in results
        for subject, volumes in result.volumes.items()
        for name, *values in map(astuple, volumes)
    ]
    return csv_text(columns, rows)
