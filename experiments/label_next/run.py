"""Runs the study: Dice after k cases that `riskft next` chose, against k random ones.

    python experiments/label_next/run.py --data DATA_ROOT [--seeds 5] [--draws 4] [--budgets 1 2 4 8] [--jobs 2]

Finished runs and choices are left out, so you can interrupt it and start it again, also with more seeds or draws.
Writes ``results/{cases,choices,table}.csv``.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from riskft.analysis.runs import find_runs
from riskft.analysis.statistics import bootstrap_interval
from riskft.cli import main as riskft
from riskft.files import csv_text, read_rows, write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments/label_next/results"
RUNS = Path("runs/evidence")
HERE = RUNS / "label_next"
MODEL, BASE = "configs/model/small_unet.yaml", "experiments/hippocampus_cross_task/base.yaml"
SOURCES = "experiments/hippocampus_cross_task/sweep.yaml"
#: Patches per epoch, so that a run has 300 steps whatever the number of cases.
PATCHES = 100
Choices = dict[str, list[str]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the study of riskft next.")
    parser.add_argument("--data", default=os.environ.get("RISKFT_DATA"), help="the development data")
    parser.add_argument("--seeds", type=int, default=5, help="each has its own source network")
    parser.add_argument("--draws", type=int, default=4, help="random choices per seed")
    parser.add_argument("--budgets", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of labelled cases")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args(arguments)
    if not options.data:
        parser.error("give --data, or set RISKFT_DATA")
    os.chdir(ROOT)
    budgets = sorted(options.budgets)
    manifests = ["experiments/manifests.py", options.data, str(RUNS / "manifests"), "--absolute", "--overwrite"]
    subprocess.run([sys.executable, *manifests], check=True)
    pool = link_pool()
    seeds = range(options.seeds)
    train_sources(seeds, options.jobs)
    choices = {seed: {**random_choices(pool, seed, options.draws, budgets), **typical(seed, budgets)} for seed in seeds}
    train(choices, options.jobs)
    for before, budget in itertools.pairwise(budgets):
        for seed in seeds:
            choices[seed][f"risk-k{budget}"] = riskier(seed, choices[seed], before, budget)
        train(choices, options.jobs)
    write_results(choices)


def link_pool() -> list[str]:
    """Links the images of the study's training cases into a folder, and returns their subjects."""
    folder = HERE / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    split = yaml.safe_load(Path(BASE).read_text())["data"]["split"]["init_args"]
    manifest = RUNS / "manifests/msd_hippocampus.csv"
    subjects = []
    for row in read_rows(manifest):
        if any(fnmatchcase(row["subject"], pattern) for pattern in split["train"]):
            subjects.append(row["subject"])
            link = folder / f"{row['subject']}.nii.gz"
            if not link.is_symlink():
                link.symlink_to(manifest.parent / row["t1"])
    return sorted(subjects)


def train_sources(seeds: Sequence[int], jobs: int) -> None:
    """Trains the source networks of hippocampus_cross_task that are not there yet."""
    sweep = yaml.safe_load(Path(SOURCES).read_text())["sweeps"][0]
    sweep["parameters"]["seed_everything"] = {"values": list(seeds)}
    run_sweeps("sources", [sweep], jobs)


def source(seed: int) -> str:
    return str(RUNS / f"hippocampus_cross_task/source/seed={seed}/checkpoints/best.ckpt")


def random_choices(pool: Sequence[str], seed: int, draws: int, budgets: Sequence[int]) -> Choices:
    """Returns nested random choices: more cases add to fewer."""
    found = {}
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(pool))
        found |= {f"random{draw}-k{budget}": [pool[index] for index in order[:budget]] for budget in budgets}
    return found


def typical(seed: int, budgets: Sequence[int]) -> Choices:
    """Returns what `riskft next` chooses without any label."""
    options = [
        *("--config", MODEL, "--model.source.checkpoint", source(seed), "--data.modalities", "[t1]"),
        *("--data.patch_size", "[32, 32, 32]", "--data.cache_dir", str(RUNS / "cache/hippocampus")),
        # only so that the scans are prepared once for all choices
        *("--data.labels.classes", "{anterior: [1], posterior: [2]}", "--trainer.accelerator", "cpu"),
    ]
    return {f"typical-k{budget}": chosen(seed, f"typical-k{budget}", budget, options) for budget in budgets}


def riskier(seed: int, choices: Choices, before: int, budget: int) -> list[str]:
    """Returns the earlier choice and what `riskft next` adds to it by the network that was trained on it."""
    name = f"risk-k{before}" if f"risk-k{before}" in choices else f"typical-k{before}"
    run = str(HERE / f"riskft,choice={name}/seed={seed}")
    return choices[name] + chosen(seed, f"risk-k{budget}", budget - before, ["--run", run])


def chosen(seed: int, name: str, count: int, options: Sequence[str]) -> list[str]:
    out = HERE / f"choices/seed={seed}/{name}"
    if not (out / "next.csv").is_file():
        riskft(["next", "--unlabelled", str(HERE / "scans"), "-k", str(count), "--out", str(out), *options])
    return [row["subject"] for row in read_rows(out / "next.csv")]


def train(choices: Mapping[int, Choices], jobs: int) -> None:
    """Fine-tunes on each choice of cases."""
    sweeps = [
        {
            "name": f"label-next-seed{seed}",
            "parameters": {
                "config.model": {"value": MODEL},
                "config.base": {"value": BASE},
                "config.method": {"value": "configs/method/riskft.yaml"},
                "run.study": {"value": "label_next"},
                "seed_everything": {"value": seed},
                "model.source.checkpoint": {"value": source(seed)},
                "model.optimizer.init_args.lr": {"value": 0.01},
                "trainer.drop_callbacks": {"value": ["riskft.RiskPanelCallback"]},
            },
            "rows": {
                "choice": [
                    {
                        "name": name,
                        "data.split.init_args.train": subjects,
                        "data.patches_per_volume": PATCHES // len(subjects),
                    }
                    for name, subjects in own.items()
                ]
            },
        }
        for seed, own in choices.items()
    ]
    run_sweeps("choices", sweeps, jobs)


def run_sweeps(name: str, sweeps: Sequence[Mapping[str, Any]], jobs: int) -> None:
    file = HERE / f"{name}.yaml"
    write_text(file, json.dumps({"sweeps": sweeps}, indent=1))  # which is YAML too
    riskft(["sweep", str(file), "--local", "-j", str(jobs)])


def write_results(choices: Mapping[int, Choices]) -> None:
    """Writes every test case's Dice, the chosen cases, and the comparison with the mean random choice."""
    found = {
        (seed, name): case_dice(HERE / f"riskft,choice={name}/seed={seed}")
        for seed, own in choices.items()
        for name in own
    }
    rows = [[*key, subject, f"{dice:.5f}"] for key, scores in found.items() for subject, dice in scores.items()]
    write_text(RESULTS / "cases.csv", csv_text(["seed", "choice", "subject", "dice"], rows))
    rows = [[seed, name, " ".join(subjects)] for seed, own in choices.items() for name, subjects in own.items()]
    write_text(RESULTS / "choices.csv", csv_text(["seed", "choice", "cases"], rows))
    columns = [
        "cases",
        "choice",
        "seeds",
        "dice",
        "random",
        "difference",
        "low",
        "high",
        "random_spread",
        "better_than",
    ]
    table = csv_text(columns, comparison(found))
    write_text(RESULTS / "table.csv", table)
    print(table)


def case_dice(folder: Path) -> dict[str, float]:
    """Returns the mean Dice over classes, in points, of each test case of a run."""
    (run,) = find_runs([folder], "dice").runs
    by_case: dict[str, list[float]] = {}
    for (subject, _), dice in run.scores.items():
        by_case.setdefault(subject, []).append(100 * dice)
    return {subject: float(np.nanmean(values)) for subject, values in sorted(by_case.items())}


def comparison(found: Mapping[tuple[int, str], Mapping[str, float]]) -> list[list[object]]:
    """Returns one row per number of cases and way to choose, against the mean over the random choices of each seed.

    The interval is of the difference, by a bootstrap over seeds and test cases. ``random_spread`` is the standard
    deviation of the mean Dice between random choices, and ``better_than`` the share of them that the choice exceeds.
    """
    names = dict.fromkeys(name for _, name in found if not name.startswith("random"))
    rows: list[list[object]] = []
    for name in sorted(names, key=lambda name: (int(name.partition("-k")[2]), name)):
        way, _, budget = name.partition("-k")
        own, mean, draws = [], [], []
        for seed in dict.fromkeys(seed for seed, other in found if other == name):
            others = [
                list(scores.values())
                for (number, other), scores in found.items()
                if number == seed and other.startswith("random") and other.endswith(f"-k{budget}")
            ]
            own.append(list(found[seed, name].values()))
            mean.append(np.mean(others, axis=0))
            draws.append(np.mean(others, axis=1))
        difference = np.array(own) - np.array(mean)
        spread = float(np.sqrt(np.mean([np.var(one, ddof=1) for one in draws]))) if len(draws[0]) > 1 else float("nan")
        better = np.mean([np.mean(values) > one for values, one in zip(own, draws, strict=True)])
        numbers = [np.mean(own), np.mean(mean), difference.mean(), *bootstrap_interval(difference), spread]
        rows.append([budget, way, len(own), *(f"{value:.2f}" for value in numbers), f"{better:.2f}"])
    return rows


if __name__ == "__main__":
    main()
