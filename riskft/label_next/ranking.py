"""Looks at all scans and chooses among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.label_next.choose import by_risk_and_distance, by_typicality, standardised
from riskft.label_next.look import Viewer
from riskft.label_next.report import Chosen
from riskft.label_next.scans import Scans
from riskft.progress import track


@dataclass(frozen=True)
class Ranking:
    """The chosen scans."""

    chosen: list[Chosen]
    seen: int  #: How many they were chosen from.
    notes: list[str]
    faults: list[str]  #: One line per scan that the network cannot look at.


def rank_scans(viewer: Viewer, scans: Scans, count: int, by_risk: bool) -> Ranking:
    """Chooses ``count`` scans by risk and distance, or by typicality if the network has not been fine-tuned.

    Raises InputError if the network can look at none of them.
    """
    faults: list[str] = []
    unlabelled, risk, features = _seen(viewer, scans.unlabelled, faults, "Unlabelled scans")
    if not unlabelled:
        raise InputError("There is no scan to choose:", faults)
    broken: list[str] = []
    _, _, known = _seen(viewer, scans.labelled, broken, "Training cases")
    notes = [f"A training case is not avoided: {line}" for line in broken]
    if len(unlabelled) < count:
        notes.append(f"There are fewer scans than the {count} that -k asks for.")
    here, there = standardised(np.array(features), np.array(known).reshape(len(known), len(features[0])))
    choices = by_risk_and_distance(np.array(risk), here, there, count) if by_risk else by_typicality(here, there, count)
    chosen = [Chosen(place, unlabelled[one.index], risk[one.index], one) for place, one in enumerate(choices, start=1)]
    return Ranking(chosen, len(unlabelled), notes, faults)


def _seen(
    viewer: Viewer, cases: Sequence[PreparedCase], faults: list[str], what: str
) -> tuple[list[PreparedCase], list[float], list[npt.NDArray[np.float64]]]:
    """Returns the cases that the network can look at, their risks and features; adds a line for each other."""
    seen: list[PreparedCase] = []
    risks, features = [], []
    for case in track(cases, len(cases), what):
        try:
            look = viewer.look(case)
        except InputError as error:
            faults.append(str(error))
            continue
        seen.append(case)
        risks.append(look.risk)
        features.append(look.features)
    return seen, risks, features
