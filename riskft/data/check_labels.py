"""What the data check finds in the values of a label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from riskft.data.findings import FaultKind, Report
from riskft.data.labels import LabelMap


def count_classes(values: npt.NDArray[Any], labels: LabelMap, path: Path, report: Report) -> dict[str, int]:
    """Returns voxels by class name, and reports values that are not whole or in no class."""
    found, numbers = np.unique(values, return_counts=True)
    whole = found == np.rint(found)
    counts = dict(zip(found[whole].tolist(), numbers[whole].tolist(), strict=True))
    if not whole.all():
        message = f"values are not whole: {_some(found[~whole])}. Resample labels with nearest neighbours"
        report(FaultKind.NON_INTEGER, path, message)
    if unknown := labels.unknown(counts):
        message = f"values are in no class: {_some(unknown)}. Add them to labels.classes, .background or .ignore"
        report(FaultKind.OUTSIDE_MAP, path, message)
    groups = {"background": labels.background, **labels.classes}
    if labels.ignore:
        groups["ignore"] = labels.ignore
    return {name: sum(counts.get(value, 0) for value in group) for name, group in groups.items()}


def _some(values: Sequence[float] | npt.NDArray[Any]) -> str:
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    return f"{', '.join(f'{value:g}' for value in values[:5])}{more}"
