"""Which way round the source sees more of the target's classes: its images as they are, or in negative."""

import logging
from collections.abc import Sequence

from riskft.data.prepare.cache import PreparedCase
from riskft.risk.phase import RiskPhase

log = logging.getLogger(__name__)

JUDGED = 8
"""Training cases that are looked at, the first by their names: the second way costs a pass over these alone."""

LEAST_GAIN = 0.05
"""Part of the labels' entropy by which the negative must explain more, for between two bad views neither is to be
preferred."""


def better_seen(as_it_is: RiskPhase, in_negative: RiskPhase, train: Sequence[PreparedCase]) -> bool:
    """Says whether the source knows clearly more of the target's classes from its images in negative, by LEEP.

    The passes that lose are not kept, but what they showed is, for later runs.

    Args:
        as_it_is: Phase 1 of the source.
        in_negative: Phase 1 of the inverted source, in a store of its own.
        train: The training cases.
    """
    judged = sorted(train, key=lambda case: case.subject)[:JUDGED]
    plain, negative = (phase.knowledge(judged) for phase in (as_it_is, in_negative))
    better = negative > plain + LEAST_GAIN
    log.info(
        "Phase 1: the source explains %.1f %% of the labels' entropy, and %.1f %% if shown the images in negative: it "
        "is shown %s",
        100 * plain,
        100 * negative,
        "the negative" if better else "the images as they are",
    )
    (as_it_is if better else in_negative).drop_forward(judged)
    return better
