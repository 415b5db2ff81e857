"""Measures why weighting helps or not: what stays wrong, what happens to the gradient, when the map goes stale.

    python experiments/why/why.py [--runs runs/evidence]

Reads the runs of ``experiments/why/sweep.yaml``, which keep every epoch, and writes ``wrong.csv``, ``gradient.csv``,
``stale.csv`` and ``why.png`` into ``results``, and prints the means. Without runs, it uses the committed results.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import draw
from measure import (
    KINDS,
    PLACES,
    changes,
    correlation_in_class,
    cosine,
    gradient_sums,
    parameter_gradient,
    places,
    push_to_background,
)
from telling import lines

from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.subjects import TrainingMaps
from riskft.errors import InputError
from riskft.files import csv_text, read_rows, write_text
from riskft.losses.fused import loss_terms
from riskft.losses.refresh import weight_table
from riskft.progress import track
from riskft.risk.distribution import BINS, ClassDistribution
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.mapping import RiskMapping
from riskft.training.found_risk import FoundRisk, find_risk
from riskft.validity.opening import LoadedRun, kept_distribution, load_run
from riskft.validity.predictors import RANK, boundary_distance, predictors, region
from riskft.validity.scores import ranks, score

RESULTS = Path(__file__).resolve().parent / "results"
#: Folder of the runs, and its name in the figure.
CONDITIONS = {
    "why_hippocampus": "hippocampus to its parts",
    "why_tissues": "tissues, T1w to T2w",
    "why_tumours": "tumours, FLAIR to T1w",
    "why_tumours_back": "tumours, T1w to FLAIR",
}
PLAIN = "plain"
WEIGHTED = ("riskft", "even")
EPOCHS = 6
STEPS = 50
BATCHES = 32
MARGIN = 4
Row = dict[str, Any]


def touching(target: torch.Tensor) -> torch.Tensor:
    """Returns which voxels (X, Y, Z) touch a voxel of another class."""
    return boundary_distance(target, (1, 1, 1)) == 0


def whole(run: LoadedRun, case: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a case's image (1, C, X, Y, Z) and classes (X, Y, Z)."""
    image = case.to_subject()["image"].data[None].float()
    return image, counted_target(case, False).long()


def wrong(plain: LoadedRun, weighted: LoadedRun) -> Iterator[Row]:
    """Yields how many errors on the test cases are corrected and how many are new, by kind and place."""
    sums = {(kind, place): np.zeros(3, int) for kind in KINDS for place in ("at the border", "elsewhere")}
    for case in plain.data.prepared("test"):
        image, target = whole(plain, case)
        first, second = (run.probabilities(image).argmax(0) for run in (plain, weighted))
        for key, counts in changes(target, first, second, touching(target)).items():
            sums[key] += counts
    for (kind, place), counts in sums.items():
        yield {"kind": kind, "place": place} | dict(zip(("wrong", "mended", "new"), counts.tolist(), strict=True))


def course(run: LoadedRun, found: FoundRisk) -> Iterator[int]:
    """Loads a run's weights at the start and after each epoch; yields the number of steps."""
    run.module.start_from(found.source, found.joint, float(found.summary["knowledge"]))
    yield 0
    for epoch in range(EPOCHS):
        path = run.folder.checkpoints / f"epoch={epoch}.ckpt"
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        run.module.load_state_dict(state, strict=False)
        yield STEPS * (epoch + 1)


class Staleness:
    """How well the source's hardness, as a rank inside the class, predicts what is hard for the network in training."""

    def __init__(self, run: LoadedRun, found: FoundRisk) -> None:
        self.run = run
        dataset = kept_distribution(run.folder, run.data)
        infer = found.source.predictor()
        self.cases: list[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for split in ("train", "test"):
            for case in run.data.prepared(split):
                image, target = whole(run, case)
                chosen = region(target, MARGIN)
                states = source_probabilities(case, infer, torch.device("cpu"))[0][:, chosen]
                none = torch.zeros(int(chosen.sum()))
                rank = predictors(states, target[chosen], none, found.joint, dataset)[RANK]
                self.cases.append((split, image, chosen, target[chosen], rank))

    def rows(self, step: int) -> Iterator[Row]:
        """Yields the means over the cases of each split."""
        values: dict[str, list[tuple[float, float]]] = {"train": [], "test": []}
        for split, image, chosen, classes, rank in self.cases:
            probabilities = self.run.probabilities(image)[:, chosen]
            hardness = -probabilities.gather(0, classes[None])[0].clamp_min(1e-12).log()
            error = (probabilities.argmax(0) != classes).to(torch.int8)
            values[split].append((correlation_in_class(rank, hardness, classes), score(ranks(rank), error).auroc))
        for split, pairs in values.items():
            correlation, auroc = np.nanmean(np.array(pairs), 0).tolist()
            yield {"step": step, "cases": split, "correlation": correlation, "auroc_of_errors": auroc}


class Gradients:
    """The gradient of cross-entropy on the same patches: unweighted, with the source's map, and with a fresh one."""

    def __init__(self, run: LoadedRun, found: FoundRisk) -> None:
        self.run = run
        if (store := run.folder.risk.store()) is None:
            raise InputError(f"{run.folder.risk.summary} does not say where the maps are")
        weights = {case.subject: store.weight_path(case.subject) for case in run.data.prepared("train")}
        loader = run.data.training_loader(TrainingMaps(weights))
        loader.sampler.set_epoch(0)
        self.batches = []
        for batch, _ in zip(loader, range(BATCHES), strict=False):
            target = batch["label"]["data"][:, 0].long()
            border = torch.stack([touching(one) for one in target])
            self.batches.append((batch["image"]["data"].float(), target, batch["risk"]["data"][:, 0].float(), border))

    def rows(self, step: int) -> Iterator[Row]:
        """Yields shares and angles of each weighting."""
        network = self.run.module.network
        logits = [self.run.module(image) for image, *_ in self.batches]
        fresh = self._fresh([each.detach() for each in logits])
        names = ("none", "source's map", "fresh map")
        sums = {name: torch.zeros(len(PLACES), dtype=torch.float64) for name in names}
        pushes = {name: np.zeros(2) for name in names}
        entropy, dice = dict.fromkeys(names, torch.zeros(())), torch.zeros(())
        for output, (_, target, static, border), new in zip(logits, self.batches, fresh, strict=True):
            place = places(output.detach(), target, border)
            terms = loss_terms(output, target, IGNORE_INDEX)
            for name, weight in zip(names, (None, static, new), strict=True):
                sums[name] += gradient_sums(output.detach(), target, weight, place)
                pushes[name] += push_to_background(output.detach(), target, weight)
                loss = (terms.entropy if weight is None else terms.entropy * weight).mean()
                entropy[name] = entropy[name] + loss / len(self.batches)
            dice = dice + terms.dice_loss() / len(self.batches)
        of_entropy = {name: parameter_gradient(loss, network) for name, loss in entropy.items()}
        of_dice = parameter_gradient(dice, network)
        plain = of_entropy["none"]
        for name in names:
            own = of_entropy[name]
            yield {
                "step": step,
                "weight": name,
                **dict(zip(PLACES, (sums[name] / sums[name].sum()).tolist(), strict=True)),
                "towards_background": float(pushes[name][0] / pushes[name][1]),
                "cosine_ce": cosine(own, plain),
                "length_ce": float(own.norm() / plain.norm()),
                "cosine_with_dice": cosine(own + of_dice, plain + of_dice),
                "length_dice_to_ce": float(of_dice.norm() / plain.norm()),
            }

    def _fresh(self, logits: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the weights that ``riskft.RefreshedLoss`` would give these patches."""
        hardness = [
            loss_terms(output, target, IGNORE_INDEX).entropy
            for output, (_, target, *_) in zip(logits, self.batches, strict=True)
        ]
        classes = logits[0].shape[1]
        cells = [
            target * BINS + ClassDistribution.bin_of(values)
            for values, (_, target, *_) in zip(hardness, self.batches, strict=True)
        ]
        counts = sum(torch.bincount(cell.flatten(), minlength=classes * BINS) for cell in cells)
        table = weight_table(counts.view(classes, BINS), RiskMapping())
        return [table[cell] for cell in cells]


def examine(condition: str, folder: Path, seeds: Sequence[int]) -> dict[str, list[Row]]:
    """Measures the runs of a condition."""
    title = CONDITIONS[condition]
    result: dict[str, list[Row]] = {"wrong": [], "gradient": [], "stale": []}
    for seed in track(seeds, len(seeds), title):
        torch.manual_seed(seed)  # of the patches
        plain, *others = (load_run(folder / condition / method / f"seed={seed}") for method in (PLAIN, *WEIGHTED))
        plain.load_weights()
        about = {"condition": title, "seed": seed}
        for method, run in zip(WEIGHTED, others, strict=True):
            run.load_weights()
            result["wrong"] += [about | {"method": method} | row for row in wrong(plain, run)]
        found = find_risk(plain.folder, plain.module)
        staleness, gradients = Staleness(plain, found), Gradients(plain, found)
        for step in course(plain, found):
            result["stale"] += [about | row for row in staleness.rows(step)]
            result["gradient"] += [about | row for row in gradients.rows(step)]
    return result


def to_csv(rows: Sequence[Row]) -> str:
    """Returns rows as CSV, fractions with four decimals."""
    columns = list(rows[0])
    shown = [
        [f"{value:.4f}" if isinstance(value, float) else value for value in map(row.__getitem__, columns)]
        for row in rows
    ]
    return csv_text(columns, shown)


def read_csv(path: Path) -> list[Row]:
    """Reads what ``to_csv`` wrote."""
    texts = ("condition", "method", "kind", "place", "weight", "cases")
    return [{key: value if key in texts else float(value) for key, value in row.items()} for row in read_rows(path)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure why weighting helps or not.")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where the runs are")
    options = parser.parse_args(arguments)
    torch.set_num_threads(2)
    found: dict[str, list[Row]] = {"wrong": [], "gradient": [], "stale": []}
    for condition in CONDITIONS:
        seeds = sorted(
            int(path.name.removeprefix("seed=")) for path in (options.runs / condition / PLAIN).glob("seed=*")
        )
        for name, rows in examine(condition, options.runs, seeds).items():
            found[name] += rows
    for name, rows in found.items():
        if rows:
            write_text(RESULTS / f"{name}.csv", to_csv(rows))
    kept = {name: read_csv(RESULTS / f"{name}.csv") for name in found}
    draw(kept, RESULTS / "why.png")
    print("\n".join(lines(kept)))


if __name__ == "__main__":
    main()
