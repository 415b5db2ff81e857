"""Runs draws of the fuzz and collects what is wrong with their ends.

``RISKFT_FUZZ_DRAWS`` and ``RISKFT_FUZZ_SEED`` ask for more draws or others, ``RISKFT_FUZZ_ONE=<seed>-<number>`` for one
alone; ``RISKFT_FUZZ_JOBS`` runs several at a time. ``-s`` shows how they ended.
"""

import gc
import os
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fuzz_draws import LIGHTNING, known_options, make_draw
from fuzz_verdict import judge, snapshot, start
from fuzz_world import World, inside
from made_parsers import make_parsers

DRAWS = int(os.environ.get("RISKFT_FUZZ_DRAWS", "300"))
SEED = os.environ.get("RISKFT_FUZZ_SEED", "0")
JOBS = int(os.environ.get("RISKFT_FUZZ_JOBS", "1"))
NAMES = [os.environ["RISKFT_FUZZ_ONE"]] if "RISKFT_FUZZ_ONE" in os.environ else [f"{SEED}-{n}" for n in range(DRAWS)]
PART = 30


def parts(file: int, files: int = 2) -> list[list[str]]:
    """Returns the names of the draws of one test file, in parts; several files share the work of several processes."""
    names = NAMES[file::files]
    return [names[k : k + PART] for k in range(0, len(names), PART)]


class Tally:
    """How many draws of each command ended in which way, and the processor time that they took."""

    def __init__(self) -> None:
        self.endings: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[str] = Counter()

    def __str__(self) -> str:
        lines = [f"{count:6d} {command}: {ending}" for (command, ending), count in sorted(self.endings.items())]
        return "\n".join(lines + [f"{seconds:6.0f} s of {command}" for command, seconds in self.seconds.items()])


def problems_of(names: Sequence[str], world: World, tally: Tally, folder: Path) -> list[str]:
    """Runs draws below ``folder`` and returns a description of each that ended badly."""
    with inside(world.folder):
        for command in ("fit", "data check", "convert"):
            known_options(command)  # in this process, once for all
        make_parsers(*LIGHTNING)
    gc.collect()
    gc.freeze()  # so that the processes of the draws share this one's memory
    problems = []
    for k in range(0, len(names), JOBS):
        started = []
        for name in names[k : k + JOBS]:
            place = folder / name / "work"
            place.parent.mkdir(parents=True)
            # in a third of the time of shutil.copytree
            subprocess.run(["cp", "-a", str(world.folder), str(place)], check=True)
            with inside(place):
                draw = make_draw(world, name, place)
            started.append((draw, place, snapshot(place), start(draw, place)))
        for draw, place, before, process in started:
            used = _processor_seconds()
            verdict = judge(draw, place, before, process)
            tally.seconds[draw.command] += _processor_seconds() - used  # type: ignore[assignment]
            tally.endings[draw.command, verdict.ending] += 1
            found = [f"{draw}\n    {problem}\n{_tail(process.log)}" for problem in verdict.problems]
            print("\n".join(found), end="", flush=True)  # noqa: T201 (with -s, long before the end)
            problems += found
            shutil.rmtree(place.parent, ignore_errors=True)
    return problems


def _processor_seconds() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    | {line[:300]}" for line in lines[-12:])
