"""Measures expected Dice and expected risk on unseen test cases, beside simpler predictors.

    python experiments/estimate/measure.py RUN... [--out experiments/estimate/results]

RUN is a run folder or a folder above several. Everything is fitted on a run's validation cases, as ``riskft predict
--expected_risk`` does, and measured on its test cases. Runs of one study and method with other seeds are the ensemble.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

from riskft.analysis.runs import run_folders
from riskft.analysis.statistics import bootstrap_interval
from riskft.data.io.native import native_grid
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.estimate.calibration import risk_map
from riskft.estimate.dice import expected_dice, fit_line, mean_over_classes, to_logit
from riskft.estimate.estimator import Estimator, fit_estimator
from riskft.estimate.evidence import CaseEvidence, Classes, entropy, evidence_of
from riskft.estimate.table import mean_risk
from riskft.evaluation.cases import native_label, spacing_of
from riskft.files import csv_text, write_text
from riskft.progress import track
from riskft.training.case_evidence import EepEntropy, dice_of, predicted
from riskft.training.found_risk import usable_risk
from riskft.validity.opening import LoadedRun, load_run
from riskft.validity.scores import ranks, score

ESTIMATE, PRIOR = "estimate", "class prior"
RISKIEST = 0.05


@dataclass(frozen=True)
class Case:
    """A predicted, labelled case."""

    subject: str
    evidence: CaseEvidence
    near_entropy: float  #: Mean entropy of the network in and near the predicted foreground.
    classes: Classes
    #: By predictor, the AUROC for errors, and the share of the errors in the riskiest voxels; of test cases.
    voxels: Mapping[str, tuple[float, float]]

    @property
    def dice(self) -> float:
        return mean_over_classes(self.evidence.dice)


@dataclass(frozen=True)
class Run:
    """What is kept of a run."""

    key: tuple[str, str]  #: Study and method.
    seed: int
    val: list[Case]
    test: list[Case]
    estimator: Estimator
    scored: Mapping[str, Sequence[int]]  #: Class indices of each class or region.


def look(run: LoadedRun, eep: EepEntropy | None, prepared: PreparedCase, estimator: Estimator | None) -> Case:
    """Predicts a case; with an estimator, scores its voxels too."""
    probabilities, eep_entropy = predicted(run.trainer, run.module, prepared, eep)
    classes = probabilities.argmax(0).astype(np.uint8)
    truth = native_label(prepared.case, run.data.labels)
    dice = dice_of(prepared.case, run.data, classes, truth)
    nats = entropy(probabilities)
    scores = {}
    if estimator is not None:
        maps = {"entropy": nats, "expected risk": risk_map(probabilities, eep_entropy, estimator.risk)}
        maps |= {} if eep_entropy is None else {"EEP entropy": eep_entropy}
        counted = truth != IGNORE_INDEX
        wrong = (classes != truth)[counted]
        scores = {name: voxel_scores(values[counted], wrong) for name, values in maps.items()}
    near = mean_risk(nats, classes, spacing_of(native_grid(prepared.case)[1]))
    evidence = evidence_of(probabilities, eep_entropy, run.data.labels.scored, truth, dice)
    return Case(prepared.subject, evidence, near, classes, scores)


def voxel_scores(values: npt.NDArray[np.floating], wrong: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Returns the AUROC for errors, and the share of the errors inside the riskiest voxels."""
    riskiest = np.argsort(-values, kind="stable")[: math.ceil(RISKIEST * len(values))]
    auroc = score(ranks(torch.from_numpy(values)), torch.from_numpy(wrong.astype(np.int8))).auroc
    return auroc, float(wrong[riskiest].sum() / wrong.sum()) if wrong.any() else math.nan


def look_at_run(folder: Path) -> Run:
    run = load_run(folder)
    run.load_weights()
    eep = None
    if run.folder.risk.summary.is_file():
        found = usable_risk(run.folder, run.module, run.data, f"{folder}: goes without the EEP")
        eep = None if found is None else EepEntropy(found, run.device)
    study, method, seed = run.folder.name()
    name = f"{study} {method} seed {seed}"
    cases = run.data.prepared("val")
    val = [look(run, eep, case, None) for case in track(cases, len(cases), f"{name}: validation")]
    estimator = fit_estimator({case.subject: case.evidence for case in val})
    cases = run.data.prepared("test")
    test = [look(run, eep, case, estimator) for case in track(cases, len(cases), f"{name}: test")]
    return Run((study, method), seed, val, test, estimator, run.data.labels.scored)


def agreement(case: Case, others: Sequence[Case], scored: Mapping[str, Sequence[int]]) -> float:
    """Returns the mean Dice between a prediction and those of the other seeds."""
    found = []
    for other in others:
        by_class = {}
        for name, indices in scored.items():
            one, two = np.isin(case.classes, indices), np.isin(other.classes, indices)
            total = int(one.sum() + two.sum())
            by_class[name] = 2 * int((one & two).sum()) / total if total else math.nan
        found.append(mean_over_classes(by_class))
    return float(np.nanmean(found))


def regressed(x_val: Sequence[float], dice: Sequence[float], x: Sequence[float]) -> list[float]:
    """Predicts Dice by a line on the logit scale, its slope shrunk as if one more case had none."""
    xs, ys = np.asarray(x_val), np.array([to_logit(value) for value in dice])
    spread = xs.std() or 1.0
    scaled = (xs - xs.mean()) / spread
    slope = (scaled * (ys - ys.mean())).sum() / ((scaled**2).sum() + 1)
    return [float(expit(ys.mean() + slope * (value - xs.mean()) / spread)) for value in x]


def predictions(run: Run, others: Sequence[Run]) -> dict[str, list[float]]:
    """Returns, by predictor, the predicted Dice of the run's test cases."""
    true = [case.dice for case in run.val]
    result = {ESTIMATE: [run.estimator.dice(case.evidence)[0].value for case in run.test]}
    for name, risk in (("voxels' risk", run.estimator.risk), ("uncalibrated", Estimator().risk)):
        result[name] = [mean_over_classes(expected_dice(case.evidence, risk)) for case in run.test]
    result["entropy"] = regressed([c.near_entropy for c in run.val], true, [c.near_entropy for c in run.test])
    result[PRIOR] = [float(np.mean(true))] * len(run.test)
    if others:
        x_val, x = (
            [
                agreement(case, [getattr(other, split)[i] for other in others], run.scored)
                for i, case in enumerate(cases)
            ]
            for split, cases in (("val", run.val), ("test", run.test))
        )
        line = fit_line(x_val, true)
        result["ensemble"] = [line(value) for value in x]
    return result


def table(runs: Sequence[Run], predicted_dice: Sequence[Mapping[str, list[float]]]) -> list[list[str]]:
    """Returns a row per predictor of the Dice: mean absolute error, how much more than the estimate's, correlation."""
    dice = np.array([[case.dice for case in run.test] for run in runs])
    errors = {name: np.abs(np.array([found[name] for found in predicted_dice]) - dice) for name in predicted_dice[0]}
    rows = []
    for name, error in errors.items():
        more = error - errors[ESTIMATE]
        low, high = bootstrap_interval(100 * more)
        pairs = [(found[name], own) for found, own in zip(predicted_dice, dice, strict=True)]
        correlations = [float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 else math.nan for a, b in pairs]
        difference = "-" if name == ESTIMATE else f"{100 * np.nanmean(more):+.2f} ({low:+.2f} to {high:+.2f})"
        rows.append([name, f"{100 * np.nanmean(error):.2f}", difference, f"{np.mean(correlations):.2f}"])
    return rows


def report(runs: Sequence[Run], out: Path) -> None:
    """Writes and prints the tables of one study and method."""
    found = [predictions(run, [other for other in runs if other is not run]) for run in runs]
    (study, method), label = runs[0].key, "_".join(runs[0].key)
    rows = table(runs, found)
    write_text(out / f"{label}_dice.csv", csv_text(("predictor", "mae", "more_than_estimate", "correlation"), rows))
    inside, lines = [], []
    for run, own in zip(runs, found, strict=True):
        for i, case in enumerate(run.test):
            interval = run.estimator.dice(case.evidence)[0]
            inside.append(interval.low <= case.dice <= interval.high)
            values = [case.dice, *interval[1:], *(own[name][i] for name in own)]
            lines.append([run.seed, case.subject, *(f"{value:.4f}" for value in values)])
    write_text(out / f"{label}_cases.csv", csv_text(("seed", "subject", "dice", "low", "high", *found[0]), lines))
    voxels = []
    for name in runs[0].test[0].voxels:
        auroc, share = np.nanmean([case.voxels[name] for run in runs for case in run.test], axis=0)
        voxels.append([name, f"{auroc:.4f}", f"{100 * share:.1f}"])
    write_text(out / f"{label}_voxels.csv", csv_text(("predictor", "auroc", "errors_in_riskiest_percent"), voxels))
    dice = [case.dice for run in runs for case in run.test]
    print(f"\n{study} {method}: {len(runs)} runs of {len(runs[0].val)} validation and {len(runs[0].test)} test cases, "
          f"Dice {100 * np.mean(dice):.1f} (standard deviation {100 * np.std(dice):.1f}); the 95 % interval holds "
          f"{100 * np.mean(inside):.0f} %")  # fmt: skip
    for row in (("predictor", "MAE", "more than the estimate", "correlation"), *rows):
        print("| " + " | ".join(row) + " |")
    for row in (("predictor", "AUROC", "errors in the riskiest 5 %"), *voxels):
        print("| " + " | ".join(row) + " |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure expected Dice and expected risk on unseen test cases.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("experiments/estimate/results"))
    options = parser.parse_args(arguments)
    groups: dict[tuple[str, str], list[Run]] = {}
    for folder in run_folders(options.runs):
        run = look_at_run(folder)
        groups.setdefault(run.key, []).append(run)
    for runs in groups.values():
        report(sorted(runs, key=lambda run: run.seed), options.out)


if __name__ == "__main__":
    main()
