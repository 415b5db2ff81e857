"""Decides whether the source sees the images as they are or inverted, by its knowledge of the target's classes."""

import logging
from collections.abc import Sequence

import torch

from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.risk.leep import conditional_from_joint, hardness
from riskft.risk.mapping import source_knowledge
from riskft.risk.ranks import ordered_sum
from riskft.risk.source_pass import SourcePass

log = logging.getLogger(__name__)

JUDGED = 8
"""Number of training cases to compare, the first by name; the second version needs a pass over these only."""

LEAST_GAIN = 0.05
"""Additional fraction of the labels' entropy that inversion must explain, so that noise does not decide."""


def better_seen(as_it_is: SourcePass, inverted: SourcePass, train: Sequence[PreparedCase]) -> bool:
    """Whether inversion makes the source clearly more informative about the target's classes, by LEEP.

    Each source has its own store. The probabilities of the rejected version are dropped, the results kept for later
    runs.
    """
    judged = sorted(train, key=lambda case: case.subject)[:JUDGED]
    plain, other = (knowledge(source, judged) for source in (as_it_is, inverted))
    better = other > plain + LEAST_GAIN
    log.info(
        "Phase 1: the source explains %.1f %% of the labels' entropy, and %.1f %% with inverted images: it sees %s",
        100 * plain,
        100 * other,
        "inverted images" if better else "the images as they are",
    )
    (as_it_is if better else inverted).drop(judged)
    return better


@torch.no_grad()
def knowledge(source: SourcePass, cases: Sequence[PreparedCase]) -> float:
    """Returns the fraction of the cases' label entropy that the source explains; runs it if the store lacks it.

    Phase 1 reuses the source probabilities.
    """
    store, ranks = source.store, source.ranks
    known = store.read_knowledge()
    if all(ranks.gather(known is not None, "phase 1: looking for a comparison")) and known is not None:
        return known
    store.refuse_unwritable()
    source.run(cases)
    joint = source.joint(cases)
    conditional = conditional_from_joint(joint)
    sums = {}
    for case in ranks.share(cases):
        parts = source.parts(case, source.target(case))
        own = [
            hardness(planes, target, conditional, IGNORE_INDEX).sum(dtype=torch.float64) for _, planes, target in parts
        ]
        sums[case.subject] = torch.stack(own).sum().cpu()
    total = ordered_sum(ranks.gather(sums, "phase 1: comparison"))
    result = source_knowledge(joint, -float(total / joint.sum()))
    if ranks.rank == 0:
        store.write_knowledge(result)
    ranks.gather(None, "phase 1: comparison")
    return result
