"""Measures how CPU time and memory grow with the number of training volumes, from 5 to 40.

Each command runs in a fork of this process, so imports are not counted. Its time with two tiny volumes is subtracted.
The exponent is the slope of log(time) over log(number of volumes), which is 1 for linear growth; "lowest" and "highest"
are the exponents from one number of volumes to the next.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from memory import config, write_cohort
from paired import Row, main

from riskft.cli import main as riskft


def forked(arguments: list[str]) -> tuple[float, float]:
    """Runs a command in a fork; returns its CPU time in s and its highest resident memory in MB."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            riskft(arguments)
            code = 0
        except SystemExit as error:
            code = int(bool(error.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(f"riskft {arguments[0]} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1000


def measure(folder: Path, count: int, edge: int, patch: int) -> dict[str, tuple[float, float]]:
    """Returns the time and memory of each part with ``count`` training volumes."""
    folder.mkdir()
    path = config(folder, write_cohort(folder / "cohort", count, [edge] * 3), patch, workers=0)
    content = json.loads(path.read_text())
    content["data"]["queue_length"] = 4  # so that the queue holds as many patches of few volumes as of many
    content["trainer"] |= {"limit_val_batches": 1, "num_sanity_val_steps": 0}
    path.write_text(json.dumps(content))
    options = ["--config", str(path)]
    return {
        "preprocessing and phase 1": forked(["riskmap", *options, "--out", str(folder / "maps")]),
        "an epoch": forked(["fit", *options]),
    }


def rows(options: argparse.Namespace) -> Iterator[Row]:
    counts, edge, patch = ([2, 4], 24, 8) if options.smoke else ([5, 10, 20, 40], 64, 32)
    said = ", ".join(map(str, counts))
    with tempfile.TemporaryDirectory() as folder:
        fixed = {}
        for name in () if options.smoke else ("first", "fixed"):
            fixed = measure(Path(folder) / name, 2, 16, 8)
        found = [measure(Path(folder) / str(count), count, edge, patch) for count in counts]
    for part in found[0]:
        times = [one[part][0] - fixed.get(part, (0, 0))[0] for one in found]
        slope = float(np.polyfit(np.log(counts), np.log(times), 1)[0])
        doublings = [math.log2(after / before) for before, after in pairwise(times)]
        spread = min(doublings), max(doublings)
        yield Row(f"{part}: CPU time of {said} volumes", "linear growth", "(exponent)", slope, 1, slope, *spread, 1.05)
        peaks = [one[part][1] for one in found]
        ratios = [peak / peaks[0] for peak in peaks[1:]]
        what = f"{part}: peak memory with {counts[-1]} volumes"
        yield Row(what, f"with {counts[0]}", "MB", peaks[-1], peaks[0], ratios[-1], min(ratios), max(ratios), 1.1)


if __name__ == "__main__":
    main("growth", rows)
