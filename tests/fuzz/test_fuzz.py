"""Whatever a user gives a command, it ends well or with a message, and leaves what was there as it was.

``RISKFT_FUZZ_DRAWS`` and ``RISKFT_FUZZ_SEED`` ask for more draws or others, ``RISKFT_FUZZ_ONE=<seed>-<number>`` for one
alone; ``RISKFT_FUZZ_JOBS`` runs several at a time. ``-s`` shows how they ended.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fuzz_draws import known_options, make_draw
from fuzz_verdict import judge, snapshot, start
from fuzz_world import World, inside, make_world

DRAWS = int(os.environ.get("RISKFT_FUZZ_DRAWS", "300"))
SEED = os.environ.get("RISKFT_FUZZ_SEED", "0")
JOBS = int(os.environ.get("RISKFT_FUZZ_JOBS", "1"))
NAMES = [os.environ["RISKFT_FUZZ_ONE"]] if "RISKFT_FUZZ_ONE" in os.environ else [f"{SEED}-{n}" for n in range(DRAWS)]
PART = 30

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.fixture(scope="module")
def ended() -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    yield counts
    print("\n" + "\n".join(f"{count:6d} {what}" for what, count in sorted(counts.items())))  # noqa: T201


@pytest.mark.parametrize("names", [NAMES[k : k + PART] for k in range(0, len(NAMES), PART)], ids=lambda names: names[0])
def test_every_mistake_ends_in_a_message(names: Sequence[str], world: World, ended: Counter[str], tmp_path: Path):
    with inside(world.folder):
        for command in ("fit", "data check", "convert"):
            known_options(command)  # in the parent, once for all
    problems = []
    for k in range(0, len(names), JOBS):
        started = []
        for name in names[k : k + JOBS]:
            folder = tmp_path / name / "work"
            shutil.copytree(world.folder, folder, symlinks=True)
            with inside(folder):
                draw = make_draw(world, name, folder)
            started.append((draw, folder, snapshot(folder), start(draw, folder)))
        for draw, folder, before, process in started:
            verdict = judge(draw, folder, before, process)
            ended[verdict.ending] += 1
            ended[f"all of {draw.command}"] += 1
            found = [f"{draw}\n    {problem}\n{_tail(process.log)}" for problem in verdict.problems]
            print("\n".join(found), end="", flush=True)  # noqa: T201 (with -s, long before the end)
            problems += found
            shutil.rmtree(folder.parent, ignore_errors=True)
    assert not problems, f"{len(problems)} of {len(names)}:\n\n" + "\n\n".join(problems)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"    | {line[:300]}" for line in lines[-12:])
