"""What the data check finds between cases: duplicate subjects, and images that occur in two splits."""

from collections.abc import Iterable
from pathlib import Path

from riskft.data.check.case import CheckedCase
from riskft.data.check.report import CheckRow
from riskft.data.findings import FaultKind, Finding
from riskft.data.records import LABELLED


def duplicates(results: Iterable[CheckedCase]) -> list[Finding]:
    """Returns one fault per subject that has more than one case."""
    splits: dict[str, list[str]] = {}
    for result in results:
        splits.setdefault(result.row.subject, []).append(result.row.split)
    return [
        Finding(
            FaultKind.DUPLICATE_SUBJECT,
            subject,
            None,
            f"{len(where)} cases have this name (in {', '.join(where)}), expected one. Rename or drop the others.",
        )
        for subject, where in splits.items()
        if len(where) > 1
    ]


def leaks(results: Iterable[CheckedCase]) -> list[Finding]:
    """Returns one fault per image that subjects of different splits share."""
    faults = []
    owners: dict[str, tuple[CheckRow, Path]] = {}
    for result in results:
        if result.row.split not in LABELLED:
            continue
        for identity, path in result.images.items():
            row, other = owners.setdefault(identity, (result.row, path))
            if row.subject != result.row.subject and row.split != result.row.split:
                message = (
                    f"{path}: the {result.row.split} image is the same as {row.subject}'s in {row.split} ({other}), "
                    "expected different people in different splits. Drop one."
                )
                faults.append(Finding(FaultKind.LEAKAGE, result.row.subject, path, message))
    return faults
