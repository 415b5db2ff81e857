"""What the data check finds in the values of a label."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage

from riskft.data.check_grid import Volume
from riskft.data.findings import FaultKind, Report, WarningKind
from riskft.data.label_values import nearest_whole, why_not_whole, written
from riskft.data.labels import LabelMap


def count_classes(values: npt.NDArray[Any], labels: LabelMap, volume: Volume, report: Report) -> dict[str, int]:
    """Returns voxels by class name, and reports values that are not whole or in no class.

    Args:
        values: The label's finite values, any shape.
        labels: The label map.
        volume: The file that they are of.
        report: Called with each fault.
    """
    found, numbers = np.unique(values, return_counts=True)
    rounded, whole = nearest_whole(found)
    counts: dict[float, int] = {}
    for value, number in zip(rounded[whole].tolist(), numbers[whole].tolist(), strict=True):
        counts[value] = counts.get(value, 0) + number
    scaling = _scaling(volume.source)
    if not whole.all():
        message = f"values are not whole: {written(found[~whole])}. {scaling}" if scaling else why_not_whole(found)
        report(FaultKind.NON_INTEGER, volume.path, message)
    if unknown := labels.unknown(counts):
        advice = "Add them to labels.classes, .background or .ignore"
        message = f"values are in no class: {written(unknown)}. {advice}{f'. {scaling}' if scaling else ''}"
        report(FaultKind.OUTSIDE_MAP, volume.path, message)
    groups = {"background": labels.background, **labels.classes}
    if labels.ignore:
        groups["ignore"] = labels.ignore
    return {name: sum(counts.get(value, 0) for value in group) for name, group in groups.items()}


def _scaling(source: Any) -> str:
    """Says how a header changes the numbers that the file stores, and what to do; empty if it does not."""
    proxy = source.dataobj if isinstance(source, SpatialImage) else None
    if not isinstance(proxy, ArrayProxy) or (proxy.slope, proxy.inter) == (1, 0):
        return ""
    added = f" and adds {proxy.inter:.7g}" if proxy.inter else ""
    return (
        f"The header multiplies the stored numbers by {proxy.slope:.7g} (scl_slope){added}: set scl_slope to 1 and "
        "scl_inter to 0 if the stored numbers are the labels, else save whole numbers without a scale"
    )


def warn_if_empty(counts: Mapping[str, int], split: str, labels: LabelMap, path: Path, report: Report) -> None:
    """Reports a label in which every voxel is ignored, and a training label without foreground; both are trained on."""
    foreground = sum(counts[name] for name in labels.classes)
    if counts.get("ignore") and not counts["background"] + foreground:
        report(WarningKind.ALL_IGNORED, path, "every voxel is ignored, so that the case has no effect. Drop the case")
    elif split == "train" and not foreground:
        message = f"no voxel is of {', '.join(labels.classes)}. Correct the label or the map if there should be some"
        report(WarningKind.EMPTY_FOREGROUND, path, message)
