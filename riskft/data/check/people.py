"""What the data check finds about people whose scans are in more than one split."""

import re
from collections.abc import Iterable

from riskft.data.check.report import CheckRow
from riskft.data.findings import FaultKind, Finding, WarningKind

_VISIT = re.compile(r"(.+?)[_-](?:t|tp|time|timepoint|visit|session|baseline|follow-?up)[_-]?\d*", re.IGNORECASE)


def people_in_two_splits(rows: Iterable[CheckRow]) -> list[Finding]:
    """Returns one fault per person with scans in more than one split, which would leak."""
    found: dict[str, dict[str, CheckRow]] = {}
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
                f"{person} has scans in {' and '.join(splits)} ({where}), expected all scans of a person in one "
                "split. Correct the split, or use riskft.FractionSplit, which keeps them together; if these are "
                "different people, correct the reader's person."
            )
            faults.append(Finding(FaultKind.PERSON_LEAKAGE, person, None, message))
    return faults


def visits_in_two_splits(rows: Iterable[CheckRow]) -> list[Finding]:
    """Returns a warning if subjects of different splits have names that differ only in what looks like a visit.

    Unlike the identifiers of BraTS and BIDS, such names are no proof, so splits ignore them. Cases whose person is
    known are skipped.
    """
    alike: dict[str, list[CheckRow]] = {}
    for row in rows:
        if row.owner == row.subject and (match := _VISIT.fullmatch(row.subject)):
            alike.setdefault(match[1].casefold(), []).append(row)
    torn = [found for found in alike.values() if len({row.split for row in found}) > 1]
    if not torn:
        return []
    first = ", ".join(f"{row.subject} ({row.split})" for row in torn[0])
    message = (
        f"{first} may be visits of one person in different splits{_more(len(torn) - 1)}. If so, name the person: by "
        "the reader's person, or the manifest's column person."
    )
    return [Finding(WarningKind.VISITS, torn[0][0].subject, None, message)]


def _more(count: int) -> str:
    return f", and so may those of {count} more" if count else ""
