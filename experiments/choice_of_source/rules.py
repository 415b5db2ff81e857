"""Reads what each rule would have chosen, what that is worth and what it costs, from the runs of ``choose.py``.

    python experiments/choice_of_source/rules.py [--out runs/evidence/choice]

Writes ``results/choices.csv`` (one row per condition, seed and rule) and ``results/table.csv`` (means and intervals),
and prints the table. In Dice points on the test cases, which no rule sees, ``regret`` is the best candidate minus the
chosen one, ``over_mean`` the chosen one minus the sources' mean, and ``over_scratch`` minus training from scratch.
``cost`` is in fine-tunings, with the chosen one's own. The noise is the regret of choosing by a race between two
trainings of the same candidate that differ in the seed. Intervals draw seeds and conditions again.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from conditions import QUIET
from scipy import stats

from riskft.analysis.statistics import bootstrap_interval
from riskft.cli import main as riskft
from riskft.files import csv_text, read_rows, write_text
from riskft.rank.candidates import SCRATCH, Candidate
from riskft.rank.decision import Rung, ranking
from riskft.rank.race import RaceOptions, run_race
from riskft.rank.race_result import RaceResult
from riskft.rank.race_runs import Entry, dice_of, marks_at
from riskft.run.folder import RunFolder

RESULTS = Path(__file__).resolve().parent / "results"
#: Rungs and budget of each race, in fine-tunings.
RACES = {
    "race, 1/8": ([0.125], 100.0),
    "race, 1/8 and 1/4 (default)": ([0.125, 0.25, 1.0], 2.0),
    "race, 1/2": ([0.5], 100.0),
    "race, all": ([1.0], 100.0),
}
NOISE_AT = 0.25


@dataclass(frozen=True)
class Choice:
    """What a rule chose."""

    condition: str
    seed: int
    rule: str
    chosen: str
    cost: float  #: In fine-tunings, with the chosen one's own.
    regret: float  #: Dice points, as the others.
    over_mean: float
    over_scratch: float
    tau: float  #: Kendall's rank correlation of a score with the sources' Dice; NaN for what is not a score.


def test_dice(folder: Path) -> float:
    """Returns a run's mean Dice on the test cases, in points: over cases, of the mean over classes."""
    cases = defaultdict(list)
    for row in read_rows(RunFolder(folder).cases):
        if (dice := float(row["dice"] or "nan")) == dice:
            cases[row["subject"]].append(dice)
    return 100 * float(np.mean([np.mean(values) for values in cases.values()]))


def race_cost(result: RaceResult) -> float:
    """Returns the cost, in fine-tunings, of a race in which a candidate that drops out is trained no further."""
    cost = 0.0
    for course in result.courses:
        reached = [max(mark.step / mark.steps for mark in marks) for marks in course.marks.values()]
        cost += 1.0 if course is result.winner else max(reached, default=0.0)
    return cost


def choices(folder: Path) -> Iterator[Choice]:
    """Yields what each rule chose in one condition with one seed."""
    condition, seed = folder.parent.name, int(folder.name.removeprefix("seed="))
    found = json.loads((folder / "rank.json").read_text())["candidates"]
    dice = {each["name"]: test_dice(folder / "race" / each["name"]) for each in found}
    sources = [name for name in dice if name != SCRATCH]
    mean = float(np.mean([dice[name] for name in sources]))

    def choice(rule: str, chosen: str, cost: float, tau: float = math.nan) -> Choice:
        own = dice[chosen]
        return Choice(
            condition, seed, rule, chosen, cost, max(dice.values()) - own, own - mean, own - dice[SCRATCH], tau
        )

    scores: Mapping[str, dict[str, float]] = defaultdict(dict)
    for each in found:
        for name, score in each.get("scores", {}).items():
            if score["value"] is not None:
                scores[name][each["name"]] = score["value"] * (1 if score["higher_is_better"] else -1)
    for name, values in scores.items():
        if len(values) == len(sources):
            tau = stats.kendalltau([values[one] for one in sources], [dice[one] for one in sources]).statistic
            yield choice(name, max(values, key=values.__getitem__), 1.0, float(tau))
    candidates = [Candidate(each["name"], [*each["arguments"], *QUIET]) for each in found]
    for rule, (rungs, budget) in RACES.items():
        # all runs have ended already, so nothing is trained
        result = run_race(candidates, RaceOptions(folder, rungs, budget), riskft)
        yield choice(rule, result.decision.winner, race_cost(result))
    yield choice("scratch", SCRATCH, 1.0)
    yield choice("the best candidate", max(dice, key=dice.__getitem__), float(len(dice)))
    regrets = [noise(folder, each) for each in candidates if (folder / "again" / each.name).is_dir()]
    if regrets:
        regret = float(np.mean(regrets))
        yield Choice(condition, seed, "noise", "", 1 + NOISE_AT, regret, math.nan, math.nan, math.nan)


def noise(folder: Path, candidate: Candidate) -> float:
    """Returns the regret of choosing between a candidate's two trainings by their scores on the way."""
    folders = {part: folder / part / candidate.name for part in ("race", "again")}
    marks = {part: marks_at([Entry(candidate.name, each, ())], NOISE_AT) for part, each in folders.items()}
    chosen = ranking(Rung(NOISE_AT, {part: dice_of(found) for part, found in marks.items()}))[0][0]
    dice = {part: test_dice(each) for part, each in folders.items()}
    return max(dice.values()) - dice[chosen]


def table(found: list[Choice]) -> Iterator[tuple[str, ...]]:
    """Yields one row per rule."""
    rules = list(dict.fromkeys(each.rule for each in found))
    conditions = sorted({each.condition for each in found})
    seeds = sorted({each.seed for each in found})
    for rule in rules:
        cells: list[str] = []
        own = [each for each in found if each.rule == rule]
        for name in ("regret", "over_mean", "over_scratch", "tau"):
            matrix = np.full((len(seeds), len(conditions)), np.nan)
            for each in own:
                matrix[seeds.index(each.seed), conditions.index(each.condition)] = getattr(each, name)
            low, high = bootstrap_interval(matrix)
            empty = np.isnan(matrix).all()
            cells.append("" if empty else f"{np.nanmean(matrix):.2f} ({low:.2f} to {high:.2f})")
        below = np.mean([each.over_scratch < 0 for each in own])
        yield rule, f"{np.mean([each.cost for each in own]):.2f}", *cells, f"{100 * below:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the rules that choose a source.")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/choice"))
    parser.add_argument("--name", default="", help="part of the results' names, for another length of the trainings")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.out.glob("*/seed=*/rank.json"))
    found = [each for folder in folders for each in choices(folder)]
    rows = ([round(part, 3) if isinstance(part, float) else part for part in astuple(each)] for each in found)
    write_text(RESULTS / f"choices{options.name}.csv", csv_text([each.name for each in fields(Choice)], rows))
    head = ("rule", "cost", "regret", "over_mean", "over_scratch", "tau", "below_scratch")
    means = list(table(found))
    write_text(RESULTS / f"table{options.name}.csv", csv_text(head, means))
    for row in (head, *means):
        print(" | ".join(row))


if __name__ == "__main__":
    main()
