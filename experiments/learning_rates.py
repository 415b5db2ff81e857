"""Chooses the learning rate of each method of a study: the one with the best mean validation Dice.

    python experiments/learning_rates.py STUDY [--runs runs/evidence]

Reads the runs of the study ``learning_rates_STUDY``, whose seeds are in no result, and writes
``experiments/STUDY/results/learning_rates.csv``. Test cases are not used.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from riskft.files import csv_text, read_rows, write_text
from riskft.run.folder import RunFolder

ROOT = Path(__file__).resolve().parent


def best_validation(run: Path) -> float:
    """Returns the run's best validation Dice, in points."""
    rows = read_rows(RunFolder(run).metrics)
    return 100 * max(float(row["val/dice"]) for row in rows if row.get("val/dice"))


def mean_validation(study: Path) -> dict[str, dict[float, float]]:
    """Returns the mean over a study's runs, by method and learning rate.

    Raises:
        SystemExit: If a method's learning rates have different runs, so that their means cannot be compared.
    """
    found: dict[tuple[str, float], dict[str, float]] = defaultdict(dict)
    for cases in sorted(study.glob("*/seed=*/cases.csv")):  # of finished runs
        method, *parts = cases.parts[-3].split(",")
        rate = next(float(part.removeprefix("lr=")) for part in parts if part.startswith("lr="))
        others = ",".join([*(part for part in parts if not part.startswith("lr=")), cases.parts[-2]])
        found[method, rate][others] = best_validation(cases.parent)
    result: dict[str, dict[float, float]] = defaultdict(dict)
    expected: dict[str, set[str]] = {}
    for (method, rate), values in sorted(found.items()):
        if differing := values.keys() ^ expected.setdefault(method, set(values)):
            raise SystemExit(
                f"{study}: {method} does not have the same runs for all learning rates: {', '.join(differing)}"
            )
        result[method][rate] = float(np.mean(list(values.values())))
    return dict(result)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Choose learning rates on validation cases.")
    parser.add_argument("study", help="a folder of experiments/")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where the runs are")
    options = parser.parse_args(arguments)
    means = mean_validation(options.runs / f"learning_rates_{options.study}")
    table = []
    for method, values in means.items():
        chosen = max(values, key=lambda rate: values[rate])
        for rate, value in values.items():
            table.append([method, f"{rate:g}", f"{value:.2f}", "yes" if rate == chosen else ""])
        print(f"{method:20s} {chosen:g}  " + "  ".join(f"{rate:g}: {value:.2f}" for rate, value in values.items()))
    write_text(
        ROOT / options.study / "results" / "learning_rates.csv",
        csv_text(["method", "lr", "validation_dice", "chosen"], table),
    )


if __name__ == "__main__":
    main()
