"""Changes the core in one place at a time and counts the changes that the fast tests notice.

    python experiments/reliability/mutants.py [--sample 450] [--seed 0]

Runs a random sample of the mutants that mutmut makes of the files in ``tool.mutmut`` (pyproject.toml). Survivors that
are as correct as the original do not count; ``equivalent_mutants.csv`` lists them with the reason.
"""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from riskft.files import csv_text, read_rows

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("equivalent_mutants.csv")
MUTMUT = Path(sys.executable).with_name("mutmut")
AIM = 0.9
SURVIVED, UNTESTED = 0, 33  # mutmut's codes; all others mean that the tests noticed the mutant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=450, help="number of mutants; 450 take 15 minutes on 2 cores")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other mutants")
    parser.add_argument(
        "--files", nargs="*", default=[], help="only modules that start with these names, such as riskft.risk.leep"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args()
    # mutmut makes all mutants before it runs the first, so this gives the names to draw from
    run(["riskft.risk.summary.*"], options.processes)
    names = sorted(name for name in results() if name.startswith(tuple(options.files or [""])))
    drawn = random.Random(options.seed).sample(names, min(options.sample, len(names)))
    run(drawn, options.processes)
    codes = results()
    raise SystemExit(report({name: codes[name] for name in drawn}, len(names)))


def run(names: list[str], processes: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [MUTMUT, "run", "--max-children", str(processes), *names]
    # its progress bar would be thousands of lines in a file
    quiet = None if sys.stdout.isatty() else subprocess.DEVNULL
    if subprocess.run(command, cwd=ROOT, env=environment, stdout=quiet, check=False).returncode:
        raise SystemExit(f"mutmut failed: do the tests pass without a mutant? See: {shlex.join(map(str, command[:4]))}")


def results() -> dict[str, int | None]:
    """Returns the exit code of every mutant, None for those that have not been run."""
    files = (ROOT / "mutants").rglob("*.py.meta")
    return {name: code for file in files for name, code in json.loads(file.read_text())["exit_code_by_key"].items()}


def report(codes: dict[str, int | None], total: int) -> int:
    """Prints the score by file and the survivors; returns 1 if too few were noticed."""
    known = {(row["function"], row["change"]): row["reason"] for row in read_rows(LIST)}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    survivors: list[tuple[str, str]] = []
    for name, code in sorted(codes.items()):
        function = name.rpartition("__mutmut_")[0]
        fate = "killed"
        if code in (SURVIVED, UNTESTED):
            change = changed_lines(name)
            fate = "equivalent" if (function, change) in known else "survived"
            survivors += [(function, change)] * (fate == "survived")
        counts[function.rpartition(".")[0]][fate] += 1
    print(f"\n{'module':32} killed survived equivalent")
    for module, found in sorted(counts.items()):
        print(f"{module:32} {found['killed']:6} {found['survived']:8} {found['equivalent']:10}")
    killed = sum(found["killed"] for found in counts.values())
    score = killed / max(1, killed + len(survivors))
    print(f"\n{len(codes)} of {total} mutants: {killed} killed, {len(survivors)} survived, score {100 * score:.1f} %")
    print(csv_text(["function", "change"], survivors), end="")
    return int(score < AIM)


def changed_lines(name: str) -> str:
    """Returns what a mutant changes, on one line."""
    shown = subprocess.run([MUTMUT, "show", name], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return " => ".join(" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")


if __name__ == "__main__":
    main()
