"""Whatever a user gives a command, it ends well or with a message, and leaves what was there as it was.

The odd draws; ``test_fuzz_even.py`` has the others, for another worker. ``fuzz_run.py`` has the options.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzz_run import Tally, parts, problems_of
from fuzz_world import World

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("names", parts(1), ids=lambda names: names[0])
def test_every_mistake_ends_in_a_message(names: Sequence[str], world: World, tally: Tally, tmp_path: Path):
    problems = problems_of(names, world, tally, tmp_path)
    assert not problems, f"{len(problems)} of {len(names)}:\n\n" + "\n\n".join(problems)
