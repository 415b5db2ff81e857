"""What ``riskft rank`` shows and writes of the scores."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from riskft.files import csv_text
from riskft.rank.candidates import Candidate
from riskft.rank.study import Rejected, Scored, by_reason
from riskft.transferability.table import Estimate

#: What fits on a terminal; the files have all scores.
SHOWN = {
    "leep": "LEEP",
    "logme.decoder": "LogME",
    "probe_dice.encoder": "encoder's probe",
    "probe_dice.decoder": "decoder's probe",
}


def rank_csv(scored: Sequence[Scored], rejected: Sequence[Rejected], scratch: Candidate) -> str:
    """Returns one row per candidate, with each score and its interval."""
    names = list(dict.fromkeys(name for each in scored for name in each.scores))
    columns = [part for name in names for part in (name, f"{name}_low", f"{name}_high")]
    rows: list[list[object]] = []
    for each in scored:
        found = [each.scores.get(name, Estimate(None)) for name in names]
        numbers = [part for score in found for part in (score.value, score.low, score.high)]
        rows.append(
            [
                each.candidate.name,
                "yes",
                _line(each.lacks),
                each.source,
                not each.lacks,
                each.cases,
                each.seconds,
                *numbers,
            ]
        )
    rows.append([scratch.name, "yes", *[""] * (5 + len(columns))])
    rows += [[each.name, "no", _line(each.reason), *[""] * (4 + len(columns))] for each in rejected]
    head = ("candidate", "takes_part", "reason", "source", "has_head", "cases", "pass_seconds")
    return csv_text([*head, *columns], rows)


def rank_json(scored: Sequence[Scored], rejected: Sequence[Rejected], scratch: Candidate) -> dict[str, Any]:
    """Returns the same, and each candidate's arguments of ``riskft fit``."""
    found: list[dict[str, Any]] = []
    for each in scored:
        plain = asdict(each)
        found.append({**plain.pop("candidate"), **plain})
    return {
        "candidates": [*found, asdict(scratch)],
        "rejected": [asdict(each) for each in rejected],
        "pass_seconds": sum(each.seconds for each in scored),
    }


def scores_table(scored: Sequence[Scored], scratch: Candidate) -> Table:
    """Returns the scores for the terminal, one row per candidate, with the intervals below them."""
    cases = max(each.cases for each in scored)
    title = f"Scores on {cases} labelled training case{'s' * (cases != 1)}, with 95 % intervals over cases"
    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    result.add_column("candidate", overflow="fold")
    for label in SHOWN.values():
        result.add_column(label, justify="right", no_wrap=True)
    for each in scored:
        result.add_row(each.candidate.name, *(_cell(each.scores.get(name)) for name in SHOWN))
    result.add_row(scratch.name, *["-"] * len(SHOWN))
    return result


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(score: Estimate | None) -> str:
    if score is None or score.value is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f}\n{score.low:.2f} to {score.high:.2f}"


def notes(scored: Sequence[Scored], rejected: Sequence[Rejected]) -> list[str]:
    """Says what the passes cost, which sources take part without their heads, and which do not, each reason once."""
    seconds = sum(each.seconds for each in scored)
    passes = sum(each.seconds > 0 for each in scored)  # the ways to use a single source share its passes
    lines = [f"The passes took {seconds:.1f} s, {seconds / max(passes, 1):.1f} s per candidate that ran its own."]
    parts = by_reason([Rejected(each.candidate.name, each.lacks) for each in scored if each.lacks])
    lines += [
        f"{', '.join(names)}: without a segmentation head: no LEEP, and fine-tuning without phase 1. {reason}"
        for reason, names in parts.items()
    ]
    return lines + [f"Left out: {', '.join(names)}: {reason}" for reason, names in by_reason(rejected).items()]
