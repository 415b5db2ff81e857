"""Chooses scans to annotate from their expected risk and their features; pure and deterministic."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
NEIGHBOURS = 20  #: The most neighbours that typicality looks at, as in the paper.
SAME = 1e-6  #: Up to this distance, scans are the same.


@dataclass(frozen=True)
class Choice:
    """A chosen scan."""

    index: int  #: Its row in the features.
    distance: float  #: Distance to the nearest scan that is labelled or was chosen earlier; NaN if there is none.
    reason: str  #: Why it was chosen, in plain words.


def standardised(features: Vector, labelled: Vector) -> tuple[Vector, Vector]:
    """Returns both with mean 0 and variance 1 of each feature over all scans, (N, F) and (L, F).

    They are divided by the root of the number of features that vary, so that two scans drawn at random are about
    sqrt(2) apart. Features that do not vary become 0.
    """
    every = np.concatenate([features, labelled])
    spread = every.std(0)
    # equal numbers may differ by rounding
    varies = spread > 1e-9 * np.abs(every).max(0, initial=1e-300)
    scaled = np.where(varies, (every - every.mean(0)) / np.where(varies, spread, 1), 0) / np.sqrt(max(varies.sum(), 1))
    return scaled[: len(features)], scaled[len(features) :]


def by_risk_and_distance(risk: Vector, features: Vector, labelled: Vector, count: int) -> list[Choice]:
    """Chooses scans of high expected risk that are far from the labelled ones and from one another.

    Greedy, as in farthest-first traversal: each time the scan with the largest product of its rank by expected risk
    (from 1/N to 1, ties share their mean) and its distance to the nearest scan that is labelled or chosen. Of equal
    products the higher risk wins, then the first row. Without a labelled scan, the first choice is the highest risk.

    Args:
        risk: (N,) expected risk.
        features: (N, F), see ``standardised``.
        labelled: (L, F) of the labelled scans.
        count: How many to choose; all if there are fewer.
    """
    rank = rankdata(risk) / max(len(risk), 1)
    nearest = cdist(features, labelled).min(1) if len(labelled) else np.full(len(risk), np.nan)
    left = np.ones(len(risk), dtype=bool)
    chosen: list[Choice] = []
    for _ in range(min(count, len(risk))):
        rows = np.flatnonzero(left)
        product = rank[rows] * np.where(np.isnan(nearest[rows]), 1, nearest[rows])
        index = int(rows[np.lexsort((-risk[rows], -product))[0]])
        among = "labelled or chosen" if len(labelled) and chosen else "labelled" if len(labelled) else "chosen"
        reason = _risk(risk, index)
        if not np.isnan(nearest[index]):
            reason += _how_far(nearest[rows], nearest[index], among)
        chosen.append(Choice(index, float(nearest[index]), reason))
        left[index] = False
        nearest = np.fmin(nearest, cdist(features, features[index : index + 1])[:, 0])
    return chosen


def by_typicality(features: Vector, labelled: Vector, count: int) -> list[Choice]:
    """Chooses typical scans of different groups, for a start with no label or a few (Hacohen et al. 2022, TypiClust).

    All scans form as many groups as there will be labelled ones (Ward's method, which draws no random numbers). From
    each group with the fewest labelled scans, largest first, comes the scan with the smallest mean distance to its
    nearest neighbours in the group: half of the group, 20 at most.

    Args:
        features: (N, F), see ``standardised``.
        labelled: (L, F) of the labelled scans.
        count: How many to choose; all if there are fewer.
    """
    groups = _groups(np.concatenate([features, labelled]), min(count, len(features)) + len(labelled))
    own, labels = groups[: len(features)], np.bincount(groups[len(features) :], minlength=groups.max(initial=0) + 1)
    nearest = cdist(features, labelled).min(1) if len(labelled) else np.full(len(features), np.nan)
    covered, sizes = labels.copy(), np.bincount(own, minlength=len(labels))
    left = np.ones(len(features), dtype=bool)
    chosen: list[Choice] = []
    for _ in range(min(count, len(features))):
        open_groups = [group for group in range(len(sizes)) if (left & (own == group)).any()]
        group = min(open_groups, key=lambda group: (covered[group], -sizes[group], group))
        index = _most_typical(features, np.flatnonzero(own == group), left)
        others_chosen = bool(covered[group] > labels[group])
        reason = _group(int(sizes[group]), len(features), count, bool(labels[group]), others_chosen)
        chosen.append(Choice(index, float(nearest[index]), reason))
        left[index] = False
        covered[group] += 1
        nearest = np.fmin(nearest, cdist(features, features[index : index + 1])[:, 0])
    return chosen


def _groups(points: Vector, count: int) -> Indices:
    """Returns each point's group, numbered from 0 in the order of their first points."""
    if len(points) < 2 or count < 2:
        return np.zeros(len(points), dtype=np.int64)
    found = fcluster(linkage(points, "ward"), count, "maxclust")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(found.tolist()))}
    return np.array([numbers[group] for group in found.tolist()], dtype=np.int64)


def _most_typical(features: Vector, members: Indices, left: npt.NDArray[np.bool_]) -> int:
    """Returns the member, of those that are left, with the smallest mean distance to its nearest neighbours."""
    neighbours = min(NEIGHBOURS, max(len(members) // 2, 1))
    # the first column is each member's distance to itself
    distances = np.sort(cdist(features[members], features[members]), axis=1)[:, 1 : 1 + neighbours]
    mean = distances.mean(1) if distances.shape[1] else np.zeros(len(members))
    free = left[members]
    return int(members[free][np.argmin(mean[free])])


def _group(size: int, scans: int, count: int, labelled: bool, others_chosen: bool) -> str:
    """Says why a scan of a group of ``size`` is chosen, in which others may be labelled or chosen earlier."""
    if count >= scans:
        return "all scans are chosen" if scans > 1 else "the only scan"
    if others_chosen:
        return f"another of {size} similar scans"
    if size == 1:
        others = f"{scans - 1} scans" if scans > 2 else "scan"
        return "similar to one that is labelled" if labelled else f"unlike the other {others}"
    whole = f"the most typical of all {scans} scans" if size == scans else f"the most typical of {size} similar scans"
    return whole if labelled else f"{whole}, none of which is labelled"


def _risk(risk: Vector, index: int) -> str:
    place = int((risk > risk[index]).sum()) + 1
    return f"{_ordinal(place)}highest expected risk of {len(risk)} scans"


def _how_far(distances: Vector, distance: float, among: str) -> str:
    """Compares a distance with those of the other scans that were left; empty if it is no larger."""
    if distance <= SAME:
        return f"; the same as one that is {among}"
    others, farther = len(distances) - 1, int((distances < distance).sum())
    if not others or not farther:
        return ""
    return f"; farther from those {among} than {farther} of {others} other{'s' * (others > 1)}"


def _ordinal(place: int) -> str:
    """Returns "" for 1, "2nd " for 2, and so on."""
    if place == 1:
        return ""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending} "
