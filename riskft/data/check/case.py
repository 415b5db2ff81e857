"""What the data check finds in one case, and in the values of its label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage

from riskft.data.check.header import check_headers
from riskft.data.check.report import BackgroundSize, CheckRow
from riskft.data.findings import FaultKind, Finding, Report, WarningKind
from riskft.data.io.grid import VolumeFile, compare_grids
from riskft.data.io.volume_faults import as_kept, open_volume, read_voxels, voxel_digest
from riskft.data.labels import LabelMap, nearest_whole, why_not_whole, written
from riskft.data.prepare.background import find_background
from riskft.data.records import LABELLED, Case


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


@dataclass
class CheckedCase:
    """What was found in one case."""

    row: CheckRow  #: Its row in the report.
    findings: list[Finding] = field(default_factory=list)  #: Its faults and warnings.
    #: Its image files by a digest of their content, or by path if voxels are not read.
    images: dict[str, Path] = field(default_factory=dict)

    def report(self, kind: FaultKind | WarningKind, path: Path, message: str) -> None:
        """Adds a finding about a file; see ``Report``."""
        self.findings.append(Finding(kind, self.row.subject, path, f"{path}: {message}."))


def inspect_case(split: str, case: Case, labels: LabelMap, voxels: bool) -> CheckedCase:
    """Opens and checks the files of a case; with ``voxels`` it reads the voxels too."""
    result = CheckedCase(CheckRow(case.subject, split, case.person))
    volumes = []
    bodies: list[npt.NDArray[np.bool_]] = []
    for path, names in _names_by_file(case).items():
        channels = [case.channels.get(name) for name in names]
        if volume := open_volume(path, result.report, channels):
            volumes.append(volume)
            if voxels:
                bodies += _inspect_voxels(volume, dict(zip(names, channels, strict=True)), result)
            else:
                result.images[str(path.resolve())] = path
    counts: dict[str, int] = {}
    if case.label is None:
        if split in LABELLED:
            message = f"the {split} case has no label file. Add one, or move the case to the split predict."
            result.findings.append(Finding(FaultKind.NO_LABEL, case.subject, None, message))
    elif volume := open_volume(case.label, result.report):
        volumes.append(volume)
        if voxels and (read := read_voxels(volume, result.report)) is not None:
            counts = count_classes(read[0], labels, volume, result.report)
            warn_if_empty(counts, split, labels, case.label, result.report)
            if len(bodies) == len(case.images):  # otherwise the crop is not known
                warn_if_cropped(read[0], bodies, labels, case.label, result.report)
    if volumes:
        compare_grids(volumes, result.report)
        check_headers(volumes, result.report)
        first = volumes[0]
        result.row = replace(result.row, shape=first.shape, spacing=first.spacing, orientation=first.orientation)
    result.row = replace(result.row, voxels=counts)
    return result


def _names_by_file(case: Case) -> dict[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    for name, path in case.images.items():
        files.setdefault(path, []).append(name)
    return files


def _inspect_voxels(
    volume: VolumeFile, channels: Mapping[str, int | None], result: CheckedCase
) -> list[npt.NDArray[np.bool_]]:
    """Reads a file once and records its modalities' grey values and backgrounds; returns each one's body mask."""
    bodies = []
    read = read_voxels(volume, result.report, tuple(channels.values()))
    for (name, channel), values in zip(channels.items(), read or (), strict=False):
        if not values.size:
            continue
        bounds = (float(values.min()), float(values.max()))
        result.row = replace(result.row, intensity={**result.row.intensity, name: bounds})
        kept = as_kept(values, volume.path, channel, result.report)
        if kept is None:
            continue
        result.images[voxel_digest(kept)] = volume.path
        if kept.ndim == 3:  # otherwise non-finite voxels were dropped
            found = find_background(kept)
            size = BackgroundSize(found.value, int(found.outside.sum()), float(found.outside.mean()), found.is_level)
            result.row = replace(result.row, background={**result.row.background, name: size})
            bodies.append(~found.outside)
    return bodies
