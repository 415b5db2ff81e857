"""What the scores of a race say: who wins, by how much, and whether the cases tell the candidates apart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riskft.analysis.statistics import bootstrap_interval
from riskft.rank.candidates import SCRATCH

#: Fewer differences all have the same sign with a probability above 5 % if there is no difference (2 of 2^5 draws).
FEWEST_CASES = 6
Vector = npt.NDArray[np.float64]
#: Dice by case and class, NaN where the class is in neither label nor segmentation.
CaseDice = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Rung:
    """The validation scores of the candidates that took part in one part of a race."""

    at: float  #: The fraction of the steps after which they were scored.
    dice: Mapping[str, CaseDice]  #: By candidate, in the order in which they were given.


@dataclass(frozen=True)
class Gain:
    """How much better the winner is than another candidate, in Dice (0 to 1), paired by case."""

    over: str  #: The other candidate.
    at: float  #: The fraction of the steps after which both were scored: the last time that both took part.
    cases: int  #: Number of cases.
    gain: float  #: Mean of winner - other.
    low: float  #: 95 % bootstrap interval over cases; NaN with fewer than two cases.
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval lies above 0, and there are enough cases for that to mean something."""
        return self.low > 0 and self.cases >= FEWEST_CASES

    def sentence(self) -> str:
        """Says what the gain is and what it is worth."""
        if not self.cases:
            return f"No case has a Dice both of the winner and of {self.over} after {steps_text(self.at)}."
        points = f"{100 * self.gain:+.1f} Dice points over {self.over} after {steps_text(self.at)}"
        if math.isnan(self.low):
            return f"{points}, on one case: there is no interval, and the gain may be chance."
        interval = f"{points} ({100 * self.low:+.1f} to {100 * self.high:+.1f}, 95 % interval over {self.cases} cases)"
        if self.separable:
            return f"{interval}: the cases separate them."
        few = f"; fewer than {FEWEST_CASES} cannot" if self.cases < FEWEST_CASES else ""
        return f"{interval}: the cases do not separate them{few}."


@dataclass(frozen=True)
class Decision:
    """The outcome of a race."""

    winner: str
    candidates: int  #: How many candidates were scored at the first rung.
    dice: float  #: The winner's mean Dice at its last rung.
    at: float  #: The fraction of the steps of that rung.
    runner_up: Gain | None  #: None if nothing else was scored.
    scratch: Gain | None  #: None if scratch won or took no part.

    def sentences(self) -> list[str]:
        """Says it in plain text, one sentence per line."""
        dice = "no case has a validation Dice" if math.isnan(self.dice) else f"validation Dice {self.dice:.3f}"
        found = [f"{self.winner}: {dice} after {steps_text(self.at)}."]
        if self.winner == SCRATCH and self.candidates > 1:
            found.append("Training from scratch won: none of the sources that took part does better here.")
        gains = [self.runner_up] if self.runner_up is not None else []
        if self.scratch is not None and (self.runner_up is None or self.runner_up.over != SCRATCH):
            gains.append(self.scratch)
        found += [gain.sentence() for gain in gains]
        if self.candidates > 1:
            found.append(
                f"The winner is the best of {self.candidates} on these cases, so its gains on new cases will be "
                "somewhat smaller: chance helps the one that is chosen."
            )
        return found


def decide(rungs: Sequence[Rung], winner: str) -> Decision:
    """Returns the decision of a race.

    Args:
        rungs: The rungs that the winner took part in, at least one, in their order. Leave out candidates that failed
            later.
        winner: The candidate that won. The runner-up is the best other one of the last rung that had any.
    """
    gains: dict[str, Gain] = {}
    second = None
    for rung in rungs:  # a later rung replaces an earlier one
        others = [name for name, _ in ranking(rung) if name != winner]
        gains |= {name: _gain(rung, winner, name) for name in others}
        second = others[0] if others else second
    last = rungs[-1]
    return Decision(
        winner,
        len(rungs[0].dice),
        dict(ranking(last))[winner],
        last.at,
        gains[second] if second is not None else None,
        gains.get(SCRATCH),
    )


def ranking(rung: Rung) -> list[tuple[str, float]]:
    """Returns the candidates of a rung with their mean Dice, best first; equal ones keep their order.

    The mean is over cases, of each case's mean over classes.
    """
    means = {name: float(values.mean()) if values.size else math.nan for name, values in case_means(rung.dice).items()}
    return sorted(means.items(), key=lambda item: -math.inf if math.isnan(item[1]) else item[1], reverse=True)


def case_means(dice: Mapping[str, CaseDice]) -> dict[str, Vector]:
    """Returns each candidate's mean over the classes of each case, (cases,), for the same cases and classes.

    A class of a case counts only if all candidates have a value: without it in the label, only those that segment it
    by mistake have one.
    """
    keys = next(iter(dice.values()), {})
    valued = [key for key in keys if all(not math.isnan(one.get(key, math.nan)) for one in dice.values())]
    subjects = list(dict.fromkeys(subject for subject, _ in valued))
    return {
        name: np.array([np.mean([one[key] for key in valued if key[0] == subject]) for subject in subjects])
        for name, one in dice.items()
    }


def going_on(count: int, left: float, each: float, last: float) -> int:
    """Returns how many of ``count`` candidates go on to the next rung: half, rounded up, or fewer to keep the budget.

    At least one goes on. More do only if the winner can then be trained to its end. All costs are in steps, as parts of
    one fine-tuning.

    Args:
        count: Candidates with a score.
        left: What is left of the budget.
        each: The cost of each candidate that goes on to the next rung.
        last: The cost of the winner after that rung.
    """
    affordable = math.floor((left - last) / each + 1e-9)
    return max(1, min(math.ceil(count / 2), affordable))


def fraction_text(part: float) -> str:
    """Returns a fraction as text: ``1/8``, ``30 %``, ``all``."""
    if part >= 1:
        return "all"
    whole = round(1 / part)
    return f"1/{whole}" if abs(1 / part - whole) < 1e-6 else f"{100 * part:.3g} %"


def steps_text(part: float) -> str:
    """Returns after how many steps: ``1/8 of the steps``, ``all steps``."""
    return f"{fraction_text(part)} {'steps' if part >= 1 else 'of the steps'}"


def _gain(rung: Rung, winner: str, other: str) -> Gain:
    means = case_means(rung.dice)
    differences = means[winner] - means[other]
    low, high = bootstrap_interval(differences[None])
    gain = float(differences.mean()) if differences.size else math.nan
    return Gain(other, rung.at, len(differences), gain, low, high)
