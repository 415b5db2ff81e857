"""What the data check finds in a split as a whole: nothing to train on, or nothing to score."""

from collections.abc import Iterable, Mapping, Sequence

from riskft.data.check.report import CheckRow
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, Case

_CONSEQUENCE = {
    "train": "there is nothing to learn",
    "val": "there is no score to choose the best checkpoint by",
    "test": "there is nothing to score",
}


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
