"""Runs the benchmarks of this folder and writes one table, into bench.csv and between the marks in README.md.

    make bench        or        python experiments/benchmarks/bench.py [NAME ...] [--smoke]

Each script runs in a process of its own, on one thread. With names or with --smoke, only OUT is written to.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import peers
from paired import Row, cpu_time, markdown, read_rows, write_rows

FOLDER = Path(__file__).resolve().parent
MARKS = "<!-- table: written by `make bench` -->", "<!-- end of the table -->"
LIMIT = 600  # seconds for one script


def scripts() -> list[Path]:
    """Returns this folder's benchmarks, which are the scripts that call ``main("<name>", ...)`` of paired.py."""
    return [
        path for path in sorted(FOLDER.glob("*.py")) if re.search(r'^    (paired\.)?main\("', path.read_text(), re.M)
    ]


def machine() -> str:
    """Returns one paragraph about the date, the machine and the versions of the libraries."""
    cpu = _after(Path("/proc/cpuinfo"), "model name") or platform.processor() or platform.machine()
    memory = int((_after(Path("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]) / 2**20
    packages = ("torch", "monai", "torchio", "lightning", "numpy", "scipy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"Measured on {datetime.now(timezone.utc):%Y-%m-%d}: {cpu}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GiB, load {os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, {versions}."
    )


def _after(path: Path, name: str) -> str | None:
    """Returns the value of a line ``name : value``, if there is one."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def measure(script: Path, out: Path, smoke: bool) -> list[Row] | None:
    """Runs a script and returns its rows, or None if it failed."""
    path = out / f"{script.stem}.csv"
    path.unlink(missing_ok=True)
    command = [sys.executable, str(script), "--out", str(out), *(["--smoke"] if smoke else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    print(f"# {script.stem}", flush=True)
    start = time.monotonic(), cpu_time()
    try:
        ended = f"exit status {subprocess.run(command, env=environment, timeout=LIMIT, check=False).returncode}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after {LIMIT} s"
    print(f"# {script.stem}: {time.monotonic() - start[0]:.0f} s, {cpu_time() - start[1]:.0f} s CPU", flush=True)
    if not path.is_file():  # the script writes it last
        print(f"{script.name} failed ({ended}): its rows are missing", file=sys.stderr)
        return None
    return read_rows(path)


def with_table(text: str, table: str) -> str:
    """Returns the text with the table between the marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    known = {path.stem: path for path in scripts()}
    parser = argparse.ArgumentParser(description="Run the benchmarks and write one table.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to run, by default all: {', '.join(known)}")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder of the scripts' CSV files")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to check that everything works")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(known):
        parser.error(f"no benchmark is named {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    if not options.smoke:
        peers.make()
    described = machine()
    found = {name: measure(known[name], options.out, options.smoke) for name in options.names or known}
    rows = [row for part in found.values() for row in part or ()]
    table = f"{described}\n\n{markdown(rows)}"
    print(f"\n{table}")
    if None in found.values():
        raise SystemExit(1)
    if not (options.names or options.smoke):
        write_rows(FOLDER / "bench.csv", rows)
        readme = FOLDER / "README.md"
        readme.write_text(with_table(readme.read_text(), table))


if __name__ == "__main__":
    main()
