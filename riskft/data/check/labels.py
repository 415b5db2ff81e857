"""What the data check finds in the values of a label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage

from riskft.data.findings import FaultKind, Report, WarningKind
from riskft.data.io.grid import VolumeFile
from riskft.data.label_values import nearest_whole, why_not_whole, written
from riskft.data.labels import LabelMap


def count_classes(values: npt.NDArray[Any], labels: LabelMap, volume: VolumeFile, report: Report) -> dict[str, int]:
    """Returns voxel counts by class name, and reports finite values that are not whole or not in any class."""
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
    """Says how the header scales the stored numbers, and what to do; empty if it does not scale them."""
    proxy = source.dataobj if isinstance(source, SpatialImage) else None
    if not isinstance(proxy, ArrayProxy) or (proxy.slope, proxy.inter) == (1, 0):
        return ""
    added = f" and adds {proxy.inter:.7g}" if proxy.inter else ""
    return (
        f"The header multiplies the stored numbers by {proxy.slope:.7g} (scl_slope){added}: set scl_slope to 1 and "
        "scl_inter to 0 if the stored numbers are the labels, otherwise save whole numbers without a scale"
    )


def warn_if_empty(counts: Mapping[str, int], split: str, labels: LabelMap, path: Path, report: Report) -> None:
    """Warns of a label in which every voxel is ignored, and of a training label without foreground."""
    foreground = sum(counts[name] for name in labels.classes)
    if counts.get("ignore") and not counts["background"] + foreground:
        report(WarningKind.ALL_IGNORED, path, "every voxel is ignored, so the case has no effect. Drop the case")
    elif split == "train" and not foreground:
        message = f"no voxel is {', '.join(labels.classes)}. Correct the label or the map if there should be some"
        report(WarningKind.EMPTY_FOREGROUND, path, message)


def warn_if_cropped(
    values: npt.NDArray[Any],
    bodies: Sequence[npt.NDArray[np.bool_]],
    labels: LabelMap,
    path: Path,
    report: Report,
) -> None:
    """Warns of foreground outside the body's bounding box, which a crop to the body would remove.

    Nothing is checked if a modality's body mask, bool, differs in shape from the label's values, (X, Y, Z).
    """
    if any(body.shape != values.shape for body in bodies):
        return
    body = np.logical_or.reduce(bodies)
    foreground = np.isin(nearest_whole(values)[0], [value for group in labels.classes.values() for value in group])
    if body.all() or not body.any() or not (total := np.count_nonzero(foreground)):
        return
    lines = (body.any(axis=others).nonzero()[0] for others in ((1, 2), (0, 2), (0, 1)))
    kept = foreground[tuple(slice(line[0], line[-1] + 1) for line in lines)]
    if beyond := total - np.count_nonzero(kept):
        message = (
            f"{beyond:,} of {total:,} foreground voxels lie in the background around the body, where the crop "
            "(data.preprocessing.crop) removes all that is beyond its margin. Set it to false if they matter, or "
            "correct the label"
        )
        report(WarningKind.CROPPED, path, message)
