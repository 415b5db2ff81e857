"""The data check: looks at every file before anything is trained on it, and reports all faults in one go."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from riskft.data.check_grid import TOLERANCE_MM, Volume, compare_grids
from riskft.data.check_people import people_in_two_splits
from riskft.data.check_report import CheckReport, Row
from riskft.data.check_volume import channel_words, open_volume, read_voxels, voxel_digest
from riskft.data.findings import FaultKind, Finding, Report, WarningKind
from riskft.data.labels import LabelMap
from riskft.data.records import SPLITS, Case

__all__ = ["TOLERANCE_MM", "CheckReport", "FaultKind", "Finding", "Row", "WarningKind", "check"]

_LABELLED = ("train", "val", "test")


def check(cases: Mapping[str, Sequence[Case]], labels: LabelMap, *, voxels: bool = True) -> CheckReport:
    """Opens the files of all cases and reports every fault; a faulty file never hides another one.

    Found in any case: missing and unreadable files, files that are not 3-D (further axes of length 1 are fine) or do
    not have the channel that is to be read, zero or non-finite spacing, singular affines, shapes and affines that
    differ within a case by more than ``TOLERANCE_MM`` (Analyze files have no affine to speak of, which is fine), a
    subject given twice, an image given to subjects of different splits, a person with scans in different splits, and
    train, val and test cases without a label.
    Found only with ``voxels``: files cut off behind the header, NaN and infinite voxels, constant images, label values
    that are not whole or in no class, training cases without any voxel of any class, and copies of an image in
    different splits, whatever the copies' names, formats, data types and compression.

    Args:
        cases: The cases of each split, as ``Split.assign`` returns them.
        labels: The task's label map, completed by ``LabelMap.with_known(reader.known_labels)``.
        voxels: Whether to read the voxels. Without, only headers are read.
    """
    jobs = [(split, case) for split in SPLITS for case in cases.get(split, ())]
    console = Console(stderr=True)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(partial(_inspect, labels=labels, voxels=voxels), jobs)
        hidden = not console.is_terminal
        found = list(track(results, "Checking the data", len(jobs), console=console, disable=hidden, transient=True))
    findings = [finding for result in found for finding in result.findings]
    findings += [*_duplicates(found), *_leaks(found)]
    findings += people_in_two_splits(result.row for result in found if result.row.split in _LABELLED)
    faults = [finding for finding in findings if finding.is_fault]
    warnings = [finding for finding in findings if not finding.is_fault]
    return CheckReport([result.row for result in found], faults, warnings)


@dataclass
class _Result:
    """What was found in one case; ``images`` are its images' files by what identifies their content."""

    row: Row
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)

    def report(self, kind: FaultKind | WarningKind, path: Path, message: str) -> None:
        self.findings.append(Finding(kind, self.row.subject, path, f"{path}: {message}."))


def _inspect(job: tuple[str, Case], labels: LabelMap, voxels: bool) -> _Result:
    split, case = job
    result = _Result(Row(case.subject, split, case.person))
    volumes = []
    intensity: dict[str, tuple[float, float]] = {}
    for path, names in _names_by_file(case).items():
        channels = [case.channels.get(name) for name in names]
        if volume := open_volume(path, result.report, channels):
            volumes.append(volume)
            if voxels:
                intensity |= _inspect_voxels(volume, dict(zip(names, channels, strict=True)), result)
            else:
                result.images[str(path.resolve())] = path
    counts: dict[str, int] = {}
    if case.label is None:
        if split in _LABELLED:
            message = f"the {split} case has no label file. Add one, or move the case to the split predict."
            result.findings.append(Finding(FaultKind.NO_LABEL, case.subject, None, message))
    elif volume := open_volume(case.label, result.report):
        volumes.append(volume)
        if voxels and (read := read_voxels(volume, result.report)) is not None:
            counts = _count_classes(read[0], labels, case.label, result.report)
            if split == "train" and not sum(counts[name] for name in labels.classes):
                message = f"no voxel is of {', '.join(labels.classes)}. Correct the label or the map, or drop the case"
                result.report(FaultKind.EMPTY_FOREGROUND, case.label, message)
    if volumes:
        compare_grids(volumes, result.report)
        first = volumes[0]
        result.row = replace(result.row, shape=first.shape, spacing=first.spacing, orientation=first.orientation)
    result.row = replace(result.row, intensity=intensity, voxels=counts)
    return result


def _names_by_file(case: Case) -> dict[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    for name, path in case.images.items():
        files.setdefault(path, []).append(name)
    return files


def _inspect_voxels(
    volume: Volume, channels: Mapping[str, int | None], result: _Result
) -> dict[str, tuple[float, float]]:
    """Reads a file once for all modalities that lie in it; returns each one's lowest and highest finite value."""
    intensity = {}
    read = read_voxels(volume, result.report, tuple(channels.values()))
    for (name, channel), values in zip(channels.items(), read or (), strict=False):
        if not values.size:
            continue
        low, high = intensity[name] = (float(values.min()), float(values.max()))
        if low == high:
            where = channel_words(channel)
            message = f"all voxels{where} are {low:g}, expected an image. Export it again or drop the case"
            result.report(FaultKind.CONSTANT, volume.path, message)
        else:
            result.images[voxel_digest(values)] = volume.path
    return intensity


def _count_classes(values: npt.NDArray[Any], labels: LabelMap, path: Path, report: Report) -> dict[str, int]:
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


def _duplicates(results: Iterable[_Result]) -> list[Finding]:
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


def _leaks(results: Iterable[_Result]) -> list[Finding]:
    faults = []
    owners: dict[str, tuple[Row, Path]] = {}
    for result in results:
        if result.row.split not in _LABELLED:
            continue
        for identity, path in result.images.items():
            row, other = owners.setdefault(identity, (result.row, path))
            if row.subject != result.row.subject and row.split != result.row.split:
                message = (
                    f"{path}: the {result.row.split} image is the same as {row.subject}'s in {row.split} ({other}), "
                    "expected other people in other splits. Drop one."
                )
                faults.append(Finding(FaultKind.LEAKAGE, result.row.subject, path, message))
    return faults
