"""What the data check finds in whose scans lie in which split."""

from collections.abc import Iterable

from riskft.data.check_report import Row
from riskft.data.findings import FaultKind, Finding


def people_in_two_splits(rows: Iterable[Row]) -> list[Finding]:
    """Returns a fault for each person with scans in more than one of the splits given, which would leak.

    Args:
        rows: The cases that are trained on or scored. Of a subject that is there twice, only the first counts.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.owner, {}).setdefault(row.subject, row)
    faults = []
    for person, subjects in found.items():
        splits = dict.fromkeys(row.split for row in subjects.values())
        if len(splits) > 1:
            where = "; ".join(
                f"{split}: {', '.join(name for name, row in subjects.items() if row.split == split)}"
                for split in splits
            )
            message = (
                f"{person} has scans in {' and '.join(splits)} ({where}), expected all of a person's in one split. "
                "Correct the split, or take riskft.FractionSplit, which keeps them together; if these are different "
                "people, correct the reader's person."
            )
            faults.append(Finding(FaultKind.PERSON_LEAKAGE, person, None, message))
    return faults
