"""All scores of one source, each with an interval from drawing the labelled cases again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from riskft.transferability.consistency import cc_fv, consistency
from riskft.transferability.moments import Moments, moments, total
from riskft.transferability.predictions import leep, leep_by_class, nce
from riskft.transferability.probe import ProbeScores, score_probe
from riskft.transferability.samples import CannotScoreError, VoxelSample, case_of_voxel
from riskft.transferability.separability import gbc, h_score, logme

Score = Callable[[Sequence[int]], float]  # of how often each case is drawn
Draw = tuple[tuple[int, ...], int]  # how often each case is drawn, and how many draws are like that

LEVEL = 0.95  #: Of the intervals.


@dataclass(frozen=True)
class Estimate:
    """A score and its interval over cases; no number is NaN or infinite."""

    value: float | None  #: None if the score cannot be computed.
    low: float | None = None  #: None if there is no value, or too few cases to draw from.
    high: float | None = None  #: As ``low``.
    higher_is_better: bool = True
    reason: str = ""  #: Why there is no value.


def score_table(samples: Sequence[VoxelSample], bootstrap: int = 200, seed: int = 0) -> dict[str, Estimate]:
    """Returns all scores of one source by name.

    ``leep``, ``leep_by_class`` and ``nce`` are of the predictions. ``h_score``, ``logme``, ``gbc``, ``cc_fv``,
    ``probe_dice`` and ``probe_nll`` are of each depth, for example ``logme.decoder``. Only for ``probe_nll`` is less
    better. Where a score cannot be computed, its estimate gives the reason.

    The interval holds 95 % of the scores of drawn cases, shifted so that their mean is the value: where a case is drawn
    twice, classes look easier to tell apart than they are, and almost all draws have a higher H-score and LogME. The
    probe is not fitted again: what it reached on the drawn cases is averaged.

    Args:
        samples: One per labelled case, all of the same source. Those without voxels do not count.
        bootstrap: How often to draw as many cases with replacement. A draw in which a class is missing that other cases
            have does not count.
        seed: Of the draws.
    """
    return SampleScores([sample for sample in samples if len(sample.classes)]).table(bootstrap, seed)


class SampleScores:
    """Computes what the draws of cases share once.

    Args:
        samples: At least one voxel each.
    """

    def __init__(self, samples: Sequence[VoxelSample]) -> None:
        self._samples = samples
        self._num_classes = 1 + max((int(sample.classes.max()) for sample in samples), default=0)
        self._moments = cache(self._moments_of)
        self._probe = cache(self._probe_of)

    def table(self, bootstrap: int, seed: int) -> dict[str, Estimate]:
        """Returns all scores by name; see ``score_table``."""
        draws = self._draws(bootstrap, seed)
        return {name: self._estimate(name, build, draws) for name, build in self._scores()}

    def _scores(self) -> Iterator[tuple[str, Callable[[], Score]]]:
        """Yields each score's name, and what prepares it, which may raise CannotScoreError."""
        if not self._samples:
            return
        for name, of_predictions in (("leep", leep), ("leep_by_class", leep_by_class), ("nce", nce)):
            yield name, partial(self._of_predictions, of_predictions)
        for depth in self._samples[0].features:
            for name, of_moments in (("h_score", h_score), ("logme", logme), ("gbc", gbc)):
                yield f"{name}.{depth}", partial(self._of_moments, of_moments, depth)
            yield f"cc_fv.{depth}", partial(self._cc_fv, depth)
            yield f"probe_dice.{depth}", partial(self._probe_dice, depth)
            yield f"probe_nll.{depth}", partial(self._probe_nll, depth)

    def _estimate(self, name: str, build: Callable[[], Score], draws: Sequence[Draw]) -> Estimate:
        higher_is_better = not name.startswith("probe_nll")
        try:
            score = build()
            value = score([1] * len(self._samples))
        except CannotScoreError as error:
            return Estimate(None, higher_is_better=higher_is_better, reason=str(error))
        found = []
        for times, count in draws:
            try:
                found.append((score(times), count))
            except CannotScoreError:
                continue
        if len(found) < 2:
            return Estimate(value, higher_is_better=higher_is_better)
        scores = np.array([drawn for drawn, count in found for _ in range(count)])
        low, high = value - scores.mean() + np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, float(low), float(high), higher_is_better)

    def _draws(self, bootstrap: int, seed: int) -> list[Draw]:
        """Returns the different draws in which no class is missing: with few cases there are few."""
        count = len(self._samples)
        if count < 2:
            return []
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), bootstrap)
        times, counts = np.unique(drawn, axis=0, return_counts=True)
        occurs = np.stack([np.bincount(one.classes, minlength=self._num_classes) > 0 for one in self._samples])
        complete = ((times > 0).astype(int) @ occurs.astype(int) > 0).sum(1) == occurs.any(0).sum()
        return [(tuple(row.tolist()), int(n)) for row, n in zip(times[complete], counts[complete], strict=True)]

    def _of_predictions(self, score: Callable[[Tensor, Tensor, Tensor], float]) -> Score:
        self._check_classes()
        given = [sample.probabilities for sample in self._samples if sample.probabilities is not None]
        if len(given) < len(self._samples):
            raise CannotScoreError("the source has no segmentation head")
        probabilities = _finite(torch.cat(given), "probabilities")
        classes = torch.cat([sample.classes for sample in self._samples])
        weights, cases = torch.cat([sample.weights for sample in self._samples]), case_of_voxel(self._samples)
        return lambda times: score(probabilities, classes, weights * torch.tensor(times, dtype=torch.float64)[cases])

    def _of_moments(self, score: Callable[[Moments], float], depth: str) -> Score:
        parts = self._moments(depth)
        return lambda times: score(total(parts, times))

    def _moments_of(self, depth: str) -> list[Moments]:
        features = self._features(depth)
        centre = torch.cat(features).double().mean(0)
        return [
            moments(values, sample.classes, self._num_classes, centre)
            for values, sample in zip(features, self._samples, strict=True)
        ]

    def _cc_fv(self, depth: str) -> Score:
        self._features(depth)
        parts = consistency(self._samples, depth)
        return lambda times: cc_fv(parts, times)

    def _probe_of(self, depth: str) -> ProbeScores:
        self._features(depth)
        return score_probe(self._samples, depth, self._num_classes)

    def _probe_nll(self, depth: str) -> Score:
        nll = self._probe(depth).nll
        return lambda times: float(np.average(nll, weights=times))

    def _probe_dice(self, depth: str) -> Score:
        dice = self._probe(depth).dice
        scored = ~np.isnan(dice)
        filled = np.where(scored, dice, 0)

        def mean(times: Sequence[int]) -> float:
            """Returns the mean over classes of the mean over the cases that have a value."""
            cases = np.array(times) @ scored
            if not cases.any():
                raise CannotScoreError("no foreground class in the labelled cases")
            return float((np.array(times) @ filled)[cases > 0] @ (1 / cases[cases > 0]) / (cases > 0).sum())

        return mean

    def _features(self, depth: str) -> list[Tensor]:
        self._check_classes()
        if lacking := [sample.subject for sample in self._samples if depth not in sample.features]:
            raise CannotScoreError(f"{len(lacking)} cases have no features of this depth, such as {lacking[0]}")
        return [_finite(sample.features[depth], "features") for sample in self._samples]

    def _check_classes(self) -> None:
        classes = {label for sample in self._samples for label in torch.unique(sample.classes).tolist()}
        if len(classes) < 2:
            raise CannotScoreError("1 class in the labelled cases, expected at least 2")


def _finite(values: Tensor, what: str) -> Tensor:
    if not values.isfinite().all():
        raise CannotScoreError(f"the source's {what} are NaN or infinite in some voxels")
    return values
