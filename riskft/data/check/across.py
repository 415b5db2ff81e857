"""What the data check finds across cases: duplicates, an image or a person in two splits, and poor splits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from riskft.data.check.case import CheckedCase
from riskft.data.check.report import CheckRow
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, Case

_VISIT = re.compile(r"(.+?)[_-](?:t|tp|time|timepoint|visit|session|baseline|follow-?up)[_-]?\d*", re.IGNORECASE)
_CONSEQUENCE = {
    "train": "there is nothing to learn",
    "val": "there is no score to choose the best checkpoint by",
    "test": "there is nothing to score",
}


def duplicates(results: Iterable[CheckedCase]) -> list[Finding]:
    """Returns one fault per subject that has more than one case."""
    splits: dict[str, list[str]] = {}
    for result in results:
        splits.setdefault(result.row.subject, []).append(result.row.split)
    messages = {
        subject: f"{len(where)} cases have this name (in {', '.join(where)}), expected one. Rename or drop the others."
        for subject, where in splits.items()
        if len(where) > 1
    }
    return [Finding(FaultKind.DUPLICATE_SUBJECT, subject, None, message) for subject, message in messages.items()]


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
    more = f", and so may those of {len(torn) - 1} more" if torn[1:] else ""
    message = (
        f"{first} may be visits of one person in different splits{more}. If so, name the person: set "
        "the reader's person, or fill in the manifest's column person."
    )
    return [Finding(WarningKind.VISITS, torn[0][0].subject, None, message)]


def poor_splits(cases: Mapping[str, Sequence[Case]], rows: Iterable[CheckRow], labels: LabelMap) -> list[Finding]:
    """Returns findings for splits without foreground, classes without a training case, and an empty training split.

    A split with an unread label is skipped.
    """
    found = []
    by_split: dict[str, list[CheckRow]] = {}
    for row in rows:
        by_split.setdefault(row.split, []).append(row)
    if "train" in cases and not cases["train"] and any(cases.values()):
        message = "there is no training case, which `fit` needs. See data.split if you want to train."
        found.append(Finding(WarningKind.EMPTY_SPLIT, "train", None, message))
    for split in LABELLED:
        seen = by_split.get(split, [])
        if not seen or not all(row.voxels for row in seen):
            continue
        missing = [name for name in labels.classes if not any(row.voxels.get(name) for row in seen)]
        if len(missing) == len(labels.classes):
            message = (
                f"no {split} case has a voxel of {', '.join(missing)}: {_CONSEQUENCE[split]}. Correct the labels or "
                "labels.classes, or select other cases (data.split)."
            )
            kind = FaultKind.EMPTY_FOREGROUND if split == "train" else WarningKind.EMPTY_FOREGROUND
            found.append(Finding(kind, split, None, message))
        elif missing and split == "train":
            message = f"no training case has a voxel of {', '.join(missing)}, so the network cannot learn it."
            found.append(Finding(WarningKind.EMPTY_FOREGROUND, split, None, message))
    return found
