"""Looks at all scans and chooses among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.label_next.choose import by_risk_and_distance, by_typicality, standardised
from riskft.label_next.look import Viewer
from riskft.label_next.report import Chosen
from riskft.label_next.scans import Scans, not_avoided
from riskft.label_next.store import Glance, LookStore
from riskft.progress import track


@dataclass(frozen=True)
class Ranking:
    """The chosen scans."""

    chosen: list[Chosen]
    seen: int  #: How many they were chosen from.
    notes: list[str]
    faults: list[str]  #: One line per scan that the network cannot look at.


def rank_scans(viewer: Viewer, store: LookStore, scans: Scans, count: int, by_risk: bool) -> Ranking:
    """Chooses ``count`` scans by risk and distance, or by typicality if the network has not been fine-tuned.

    Raises InputError if the network can look at none of them.
    """
    faults: list[str] = []
    unlabelled = _seen(viewer, store, scans.unlabelled, faults, "Unlabelled scans")
    if not unlabelled:
        raise InputError("No scan is left to choose from:", faults)
    broken: list[str] = []
    labelled = _seen(viewer, store, scans.labelled, broken, "Training cases")
    notes = not_avoided(broken)
    if len(unlabelled) < count:
        notes.append(f"There are fewer scans than the {count} that -k asks for.")
    risk = np.array([glance.risk for _, glance in unlabelled])
    features = np.stack([glance.features for _, glance in unlabelled])
    known = np.array([glance.features for _, glance in labelled]).reshape(len(labelled), features.shape[1])
    here, there = standardised(features, known)
    choices = by_risk_and_distance(risk, here, there, count) if by_risk else by_typicality(here, there, count)
    chosen = [Chosen(place, *unlabelled[one.index], one) for place, one in enumerate(choices, start=1)]
    return Ranking(chosen, len(unlabelled), notes, faults)


def _seen(
    viewer: Viewer, store: LookStore, cases: Sequence[PreparedCase], faults: list[str], what: str
) -> list[tuple[PreparedCase, Glance]]:
    """Returns the cases that the network can look at; adds a line to the faults for each other."""
    seen: list[tuple[PreparedCase, Glance]] = []
    for case in track(cases, len(cases), what):
        try:
            if (glance := store.read(case.key)) is None:
                look = viewer.look(case)
                glance = Glance(look.risk, look.dice, look.features)
                store.write(case.key, glance)
        except InputError as error:
            faults.append(str(error))
        else:
            seen.append((case, glance))
    return seen
