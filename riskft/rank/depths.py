"""Further candidates of a single source: which part of it to load, and how strongly to hold on to it."""

import logging
from dataclasses import replace

from riskft.errors import InputError
from riskft.rank.candidates import Candidate
from riskft.rank.opening import Opener
from riskft.rank.study import Rejected, Scored

log = logging.getLogger(__name__)

MOST = 6  #: Candidates of the race, scratch included: each further one takes steps of the budget from the others.
#: Strengths of L2-SP: at the default learning rate, 5e-4, a weight without gradient comes nearer to the source by a
#: factor of e within 200 or 2,000 steps.
ALPHAS = (10.0, 1.0)


def depth_candidates(base: Candidate) -> list[Candidate]:
    """Returns the other ways to use the source of a candidate, which differ from it in one option each."""
    ways = {
        "encoder": ["--model.source.load=encoder", "--model.head_init=random"],
        "not_first": ["--model.source.load=not_first"],
    }
    for alpha in ALPHAS:
        ways[f"l2sp={alpha:g}"] = ["--trainer.callbacks+=riskft.L2SP", f"--trainer.callbacks.alpha={alpha:g}"]
    return [Candidate(f"{base.name}-{way}", [*base.arguments, *more]) for way, more in ways.items()]


def depth_study(base: Scored, opener: Opener, most: int) -> tuple[list[Scored], list[Rejected]]:
    """Returns up to ``most`` other ways to use a scored source, and those that its network does not allow.

    They have the source's scores, as its passes do not depend on them.
    """
    found: list[Scored] = []
    impossible: list[Rejected] = []
    for candidate in depth_candidates(base.candidate):
        if len(found) == most:
            break
        try:
            opener.built(candidate)
        except InputError as error:
            log.warning("%s cannot take part: %s", candidate.name, error)
            impossible.append(Rejected(candidate.name, str(error)))
        else:
            found.append(replace(base, candidate=candidate, seconds=0.0))
    return found, impossible
