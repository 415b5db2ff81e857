"""Measures what choosing the source is worth: each score of ``riskft rank``, and races, against the best source.

    python experiments/choice_of_source/choose.py [--seeds 5] [--jobs 2] [--epochs 20] [--out runs/evidence/choice]

For each condition and seed: ``riskft rank`` scores all sources, every candidate is fine-tuned to its end with pauses
where races would decide, and tested. From these runs ``rules.py`` reads what each rule would have chosen. Finished
parts are left out, so you can interrupt it and start it again. The source networks and cohorts come from
``python experiments/evidence.py phantom_cross_modality``.
"""

import argparse
import json
from pathlib import Path

from conditions import QUIET, Condition, conditions

from riskft.cli import main as riskft
from riskft.rank.race_runners import local_runner
from riskft.rank.race_runs import Entry, run_rung
from riskft.sweep.plan import Run

RUNGS = (0.125, 0.25, 0.5, 1.0)
#: Added to the seed for a second training of each candidate on the same cases, which measures the noise.
AGAIN = 1000


def scored(condition: Condition, seed: int, out: Path) -> dict[str, list[str]]:
    """Ranks the sources without a race; returns the arguments of each candidate that takes part."""
    sources = [source.format(seed=seed) for source in condition.sources]
    more = ["--race=false", f"--out={out}", "--sources", *sources]
    riskft(["rank", *condition.fit(seed), *more])
    found = json.loads((out / "rank.json").read_text())["candidates"]
    return {each["name"]: each["arguments"] for each in found}


def train(candidates: dict[str, list[str]], out: Path, jobs: int, more: list[str]) -> None:
    """Fine-tunes all candidates to their end, pausing at each rung, and tests them."""
    runner = local_runner(jobs, riskft)
    entries = [Entry(name, out / name, (*arguments, *more)) for name, arguments in candidates.items()]
    for at in RUNGS:
        if failed := run_rung(entries, at, runner):
            raise SystemExit(f"Failed: {failed}")
    for run, state in runner([as_tested(entry) for entry in entries]):
        if state.name != "finished":
            raise SystemExit(f"{run.folder}: {state.reason}")


def as_tested(entry: Entry) -> Run:
    """Returns an entry's run to its end, with its test."""
    run = entry.run_to(1.0)
    return Run(run.folder, run.arguments, run.values, tested=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune every candidate of every condition.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--epochs", type=int, help="another length of the trainings, in epochs")
    parser.add_argument("--again", action="store_true", help="also train each candidate with a second seed")
    parser.add_argument("--only", default="", help="conditions whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/choice"))
    options = parser.parse_args()
    for seed in range(options.seeds):
        for condition in conditions(options.epochs):
            if options.only not in condition.name:
                continue
            out = options.out / condition.name / f"seed={seed}"
            candidates = scored(condition, seed, out)
            train(candidates, out / "race", options.jobs, QUIET)
            if options.again:
                train(candidates, out / "again", options.jobs, [*QUIET, f"--seed_everything={seed + AGAIN}"])


if __name__ == "__main__":
    main()
