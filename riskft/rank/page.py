"""A ranking as a self-contained HTML page. Its template is `assets/rank.html`."""

import math
from collections.abc import Sequence

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from riskft.compare.figures import curves_svg
from riskft.compare.tables import Cell, ReportTable
from riskft.rank.candidates import Candidate
from riskft.rank.decision import steps_text
from riskft.rank.race_result import RaceResult
from riskft.rank.study import Rejected, Scored
from riskft.rank.table import notes
from riskft.run.record import git_commit
from riskft.training.plan import in_words
from riskft.transferability.table import Estimate


def rank_html(
    scored: Sequence[Scored], rejected: Sequence[Rejected], scratch: Candidate, result: RaceResult | None
) -> str:
    """Returns the page: decision, race and scores; ``result`` is None if there was no race."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("riskft.rank", "assets"), PackageLoader("riskft.compare", "assets")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    curves = {course.name: [course.curve()] for course in result.courses if course.marks} if result else {}
    return environment.get_template("rank.html").render(
        sentences=result.sentences() if result else [],
        race=race_lines(result) if result else None,
        curves=curves_svg({"validation Dice": curves}, list(curves)) if curves else None,
        scores=score_lines(scored, scratch),
        notes=notes(scored, rejected),
        commit=git_commit(),
    )


def race_lines(result: RaceResult) -> ReportTable:
    """Returns one row per candidate of a race: Dice at each rung, its cost, and what became of it."""
    rungs = sorted({at for course in result.courses for at in course.marks})
    lines = []
    for course in result.courses:
        dice = [_number(course.dice(at)) for at in rungs]
        cost = [Cell(f"{course.cost:.2f}", course.cost), Cell(in_words(course.seconds), course.seconds)]
        lines.append(([Cell(course.name), Cell(course.outcome), *dice, *cost], False))
    headers = ["candidate", "outcome", *(f"Dice after {steps_text(at)}" for at in rungs), "fine-tunings", "time"]
    cases = f"on {result.folds} groups of cases left out in turn" if result.folds else "on the validation cases"
    return ReportTable(f"Mean validation Dice at each rung, {cases}", headers, lines, 2)


def score_lines(scored: Sequence[Scored], scratch: Candidate) -> ReportTable:
    """Returns one row per candidate: each score with its interval."""
    names = list(dict.fromkeys(name for each in scored for name in each.scores))
    lines = [
        ([Cell(each.candidate.name), *(_estimate(each.scores.get(name, Estimate(None))) for name in names)], False)
        for each in scored
    ]
    lines.append(([Cell(scratch.name), *(_estimate(Estimate(None)) for _ in names)], True))
    return ReportTable("Scores on the labelled training cases, with 95 % intervals", ["candidate", *names], lines, 1)


def _number(value: float) -> Cell:
    return Cell("-" if math.isnan(value) else f"{value:.3f}", value)


def _estimate(score: Estimate) -> Cell:
    if score.value is None:
        return Cell("-", math.nan)
    between = "" if score.low is None or score.high is None else f" ({score.low:.3g} to {score.high:.3g})"
    return Cell(f"{score.value:.3g}{between}", score.value)
