"""All studies that run here: cohorts and manifests, sweeps in their order, and the committed results.

    python experiments/evidence.py [STUDY ...] [--jobs 2] [--data DATA_ROOT]

What is finished is left out, so that it can be interrupted. The studies of real scans need the development data
(DATA_ROOT, by default the environment's RISKFT_DATA) and are left out without them.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("runs/evidence")
#: The sweeps of each study, in order: source networks first, then the search for learning rates.
STUDIES = {
    "phantom_tissues": (
        *("source", "lr", "lr_scratch", "scratch_t1", "scratch_t2"),
        *("from_t1", "from_t2", "from_t1_riskft", "from_t2_riskft"),
    ),
    "phantom_cross_modality": (
        *("source", "lr", "lr_scratch", "scratch", "from_t1", "from_t1ce", "from_t2", "from_flair"),
        *("slow_from_t1", "slow_from_t1ce", "slow_from_t2", "slow_from_flair"),
    ),
    "brats15": (
        *("source", "lr", "lr_scratch"),
        *("scratch_flair_whole-t1ce_whole", "scratch_t1ce_whole-flair_whole", "scratch_t1ce_whole-t1ce_three"),
        *("flair_whole-t1ce_whole", "t1ce_whole-flair_whole", "t1ce_whole-t1ce_three"),
        *("slow_flair_whole-t1ce_whole", "slow_t1ce_whole-flair_whole", "slow_t1ce_whole-t1ce_three"),
    ),
    "phantom_cross_task": (
        *("source", "source_tissue", "scratch_core", "scratch_enhancing", "scratch_tumour"),
        *("whole_to_core", "core_to_enhancing", "tissue_to_tumour"),
        *("slow_whole_to_core", "slow_core_to_enhancing", "slow_tissue_to_tumour"),
    ),
    "open_ms": (
        *("source", "scratch_flair-t2", "scratch_flair-t1", "scratch_t1-flair"),
        *("flair-t2", "flair-t1", "t1-flair"),
    ),
    "hippocampus_cross_task": ("source", "lr", "lr_scratch", "scratch", "fast", ""),
    "few_shot": ("scratch", "", "fast", "lr_random_head"),
    "ablation": ("",),
    "why": ("hippocampus", "tissues", "tumours", "tumours_back"),
}
BASELINES = {"ablation": "riskft", "why": "plain"}
ON_REAL_DATA = ("brats15", "open_ms", "hippocampus_cross_task", "few_shot", "why")
#: What makes further results of a study.
FURTHER = {"why": "experiments/why/why.py"}


def sweep_files(study: str) -> list[str]:
    """Returns a study's sweep files."""
    return [f"experiments/{study}/sweep{'_' if name else ''}{name}.yaml" for name in STUDIES[study]]


def run(*command: str) -> None:
    print("$", *command, flush=True)
    subprocess.run([sys.executable, *command], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run the studies.")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}; all by default")
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
        run("-m", "riskft", "sweep", *sweep_files(study), "--local", "-j", str(options.jobs))
        if "lr" in STUDIES[study]:
            run("experiments/learning_rates.py", study)
        run("experiments/summarise.py", study, "--baseline", BASELINES.get(study, "vanilla"))
        if study in FURTHER:
            run(FURTHER[study])


if __name__ == "__main__":
    main()
