"""Which way round the source sees more of the target's classes: its images as they are, or in negative."""

import logging
from collections.abc import Sequence

from riskft.data.cache import Prepared
from riskft.risk.phase import RiskPhase

log = logging.getLogger(__name__)

JUDGED = 8
"""Training cases that are looked at, the first by their names: the second way costs a pass over these alone."""


def better_seen(as_it_is: RiskPhase, in_negative: RiskPhase, train: Sequence[Prepared]) -> bool:
    """Says whether the source knows more of the target's classes from its images in negative.

    What is compared is how much of the labels' entropy a probe explains (``riskft.risk.probe``), not LEEP: a source
    that calls everything background explains nothing by its probabilities' mass, and may by what is left. The passes
    that lose are not kept, but their numbers are, for later runs.

    Args:
        as_it_is: Phase 1 of the source.
        in_negative: Phase 1 of the inverted source, in a store of its own.
        train: The training cases.
    """
    judged = sorted(train, key=lambda case: case.subject)[:JUDGED]
    phases = (as_it_is, in_negative)
    plain, negative = (phase.probe_knowledge(judged) for phase in phases)
    log.info(
        "Phase 1: the source's output explains %.1f %% of the labels' entropy, with the images in negative %.1f %%: "
        "it is shown %s",
        100 * plain,
        100 * negative,
        "the negative" if negative > plain else "the images as they are",
    )
    phases[negative <= plain].drop_forward(judged)
    return negative > plain
