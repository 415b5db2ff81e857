"""Runs the studies: makes cohorts and manifests, runs the sweeps in order, and writes the committed results.

    python experiments/evidence.py [STUDY ...] [--jobs 2] [--data DATA_ROOT]

Finished runs are left out, so you can interrupt it and start it again. The studies of real scans need the development
data (DATA_ROOT, by default the environment variable RISKFT_DATA) and are left out without them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("runs/evidence")
#: In an order in which the source networks of a study are there before another study takes them.
STUDIES = (
    *("phantom_tissues", "phantom_cross_modality", "brats15", "phantom_cross_task", "open_ms"),
    *("hippocampus_cross_task", "few_shot", "ablation", "why"),
)
#: Those that choose learning rates.
WITH_RATES = ("phantom_tissues", "phantom_cross_modality", "brats15", "hippocampus_cross_task")
BASELINES = {"ablation": "riskft", "why": "plain"}
ON_REAL_DATA = ("brats15", "open_ms", "hippocampus_cross_task", "few_shot", "why")
#: Scripts that compute further results of a study.
FURTHER = {"why": "experiments/why/why.py"}


def run(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run([sys.executable, *command], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the studies.")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"some of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--data", default=os.environ.get("RISKFT_DATA"), help="the development data")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.studies) - set(STUDIES)):
        parser.error(f"no such study: {', '.join(unknown)}")
    os.chdir(ROOT)
    chosen = options.studies or list(STUDIES)
    if options.data:
        run("experiments/manifests.py", options.data, str(RUNS / "manifests"), "--absolute", "--overwrite")
    elif left_out := [study for study in chosen if study in ON_REAL_DATA]:
        print("Without --data these are left out:", *left_out)
        chosen = [study for study in chosen if study not in left_out]
    run("-m", "riskft", "data", "phantom", str(RUNS / "cohort"), "--subjects", "40", "--spacing", "3", "--seed", "1")
    for study in chosen:
        run("-m", "riskft", "sweep", f"experiments/{study}/sweep.yaml", "--local", "-j", str(options.jobs))
        if study in WITH_RATES:
            run("experiments/learning_rates.py", study)
        run("experiments/summarise.py", study, "--baseline", BASELINES.get(study, "vanilla"))
        if study in FURTHER:
            run(FURTHER[study])


if __name__ == "__main__":
    main()
