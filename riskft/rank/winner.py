"""The config that goes on from the candidate that was chosen."""

from pathlib import Path
from typing import Any

import yaml

from riskft.rank.candidates import Candidate
from riskft.rank.opening import Opener


def winner_config(opener: Opener, chosen: Candidate, folder: Path | None) -> str:
    """Returns a config for ``riskft fit`` as YAML.

    Args:
        opener: Parses the candidate's arguments.
        chosen: The candidate.
        folder: Where a race trained it, to go on from its last checkpoint; None to start there where ``run`` says.
    """
    going_on = [f"--run.method={chosen.name}", f"--run.folder={folder}", "--ckpt_path=last"] if folder else []
    config: dict[str, Any] = opener.config([*chosen.arguments, *going_on])
    return str(yaml.safe_dump(config, sort_keys=False))
