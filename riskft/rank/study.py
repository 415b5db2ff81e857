"""Scores all sources by one pass each, and says which of them to race."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from riskft.errors import InputError, NoSpaceError, first_line, refuse
from riskft.files import fingerprint, json_or_none, write_json
from riskft.rank.candidates import Candidate, from_scratch, without_risk_sampling
from riskft.rank.opening import Opener
from riskft.rank.passes import Passes
from riskft.transferability.table import Estimate, score_table

log = logging.getLogger(__name__)

#: The score that chooses which sources race if there are many.
SHORT_LIST = "probe_dice"
_VERSION = 1  #: Of the stored scores.


@dataclass(frozen=True)
class Scored:
    """A source that takes part, and its scores."""

    candidate: Candidate
    source: str = ""  #: Its ``model.source.checkpoint``.
    lacks: str = ""  #: Why the source takes part without its head, if so; see ``OpenSource``.
    draws_by_risk: bool = False  #: Whether the configs' patches follow the risk map.
    cases: int = 0  #: Labelled training cases that it was scored on.
    seconds: float = 0.0  #: What its passes took when they were made.
    scores: dict[str, Estimate] = field(default_factory=dict)  #: By name.
    preprocessing: str = ""  #: Of its data.
    fingerprint: str = ""  #: Of the source's weights, how they are used, and the training and validation cases.


@dataclass(frozen=True)
class Rejected:
    """A source that cannot take part."""

    name: str
    reason: str


def score_sources(
    candidates: Sequence[Candidate], opener: Opener, passes: Passes, bootstrap: int
) -> tuple[list[Scored], list[Rejected]]:
    """Makes the missing passes of all sources and scores them; a source that fails does not stop the others.

    Args:
        candidates: One or two per source.
        opener: Opens them.
        passes: The stored passes.
        bootstrap: Draws of the intervals.

    Raises:
        InputError: If no source can take part, or the disk is full.
    """
    scored: list[Scored] = []
    rejected: list[Rejected] = []
    for candidate in candidates:
        try:
            scored.append(_score(candidate, opener, passes, bootstrap))
        except NoSpaceError:
            raise
        except Exception as error:  # the network's code may raise anything
            reason = str(error) if isinstance(error, InputError) else first_line(error)
            if reason not in by_reason(rejected):  # inverted, it fails for the same reason
                log.warning("%s cannot take part: %s", candidate.name, reason)
            rejected.append(Rejected(candidate.name, reason))
    if not scored:
        lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason(rejected).items()]
        refuse("No source can take part:", lines)
    return scored, rejected


def by_reason(rejected: Sequence[Rejected]) -> dict[str, list[str]]:
    """Returns the names of the rejected sources by their reason."""
    found: dict[str, list[str]] = {}
    for each in rejected:
        found.setdefault(each.reason, []).append(each.name)
    return found


def _score(candidate: Candidate, opener: Opener, passes: Passes, bootstrap: int) -> Scored:
    opened = opener.open(candidate)
    samples, seconds = passes.run(opened)
    cases = opened.data.fingerprint()
    column = passes.column(opened)
    key = fingerprint({"version": _VERSION, "cases": cases, "bootstrap": bootstrap, "seed": passes.seed})
    path = column / f"scores-{key}.json"
    scores = _read(path)
    if scores is None:
        log.info("Scores of %s", candidate.name)
        scores = score_table(samples, bootstrap, passes.seed)
        write_json(path, {name: asdict(score) for name, score in scores.items()})
    return Scored(
        candidate=opened.candidate,
        source=opened.checkpoint,
        lacks=opened.lacks,
        draws_by_risk=opened.data.sampling.needs_risk,
        cases=len(samples),
        seconds=seconds,
        scores=scores,
        preprocessing=repr(opened.data.preprocessing),
        fingerprint=fingerprint(
            {"source": opened.inputs, "cases": cases, "validation cases": opened.data.fingerprint("val")}
        ),
    )


def _read(path: Path) -> dict[str, Estimate] | None:
    content = json_or_none(path)
    try:
        return {name: Estimate(**score) for name, score in content.items()}
    except (AttributeError, TypeError):
        return None


def scratch_of(fit: Sequence[str], config: dict[str, Any], scored: Sequence[Scored]) -> Candidate:
    """Returns training from scratch, with the configs' network or else the first source's own."""
    network = config["model"]["source"]["network"]
    scratch = from_scratch(fit, scored[0].source if network is None else None)
    return without_risk_sampling(scratch) if scored[0].draws_by_risk else scratch


def short_list(scored: Sequence[Scored], most: int) -> list[Scored]:
    """Returns the sources that race, in the order given: all, or the ``most`` with the best probe.

    The probe's Dice on left-out cases, at the depth where it is highest, exists for sources with and without a head.
    """
    if len(scored) <= most:
        return list(scored)
    best = sorted(scored, key=probe_of, reverse=True)[:most]
    return [each for each in scored if each in best]


def best_probe(scored: Sequence[Scored]) -> Scored:
    """Returns the source with the best probe."""
    return max(scored, key=probe_of)


def probe_of(scored: Scored) -> float:
    """Returns a source's best probe over the depths, -1 without one."""
    found = [score.value for name, score in scored.scores.items() if name.startswith(SHORT_LIST)]
    return max((value for value in found if value is not None), default=-1.0)
