"""What the data check finds in one case."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from riskft.data.check.header import check_headers
from riskft.data.check.labels import count_classes, warn_if_cropped, warn_if_empty
from riskft.data.check.report import BackgroundSize, CheckRow
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.io.grid import VolumeFile, compare_grids
from riskft.data.io.volume_faults import as_kept, open_volume, read_voxels, voxel_digest
from riskft.data.labels import LabelMap
from riskft.data.prepare.background import find_background
from riskft.data.records import LABELLED, Case


@dataclass
class CheckedCase:
    """What was found in one case."""

    row: CheckRow  #: Its row in the report.
    findings: list[Finding] = field(default_factory=list)  #: Its faults and warnings.
    #: Its image files by a digest of their content, or by path without voxels.
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
    """Reads a file once, and enters its modalities' grey values and backgrounds; returns each one's body mask."""
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
