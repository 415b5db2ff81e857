"""The data check: looks at every file before anything is trained on it, and reports all faults in one go."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

from riskft.data.check_case import inspect_case
from riskft.data.check_copies import duplicates, leaks
from riskft.data.check_grid import TOLERANCE_MM
from riskft.data.check_header import silent_itk
from riskft.data.check_people import people_in_two_splits
from riskft.data.check_report import CheckReport, Row
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, SPLITS, Case

__all__ = ["TOLERANCE_MM", "CheckReport", "FaultKind", "Finding", "Row", "WarningKind", "check"]


def check(cases: Mapping[str, Sequence[Case]], labels: LabelMap, *, voxels: bool = True) -> CheckReport:
    """Opens the files of all cases and reports every fault; a faulty file never hides another one.

    Found in any case: missing and unreadable files, files that are not 3-D (further axes of length 1 are fine) or do
    not have the channel that is to be read, zero or non-finite spacing, singular affines, shapes and affines that
    differ within a case by more than ``TOLERANCE_MM`` (Analyze files have no affine to speak of, which is fine), a
    subject given twice, an image given to subjects of different splits, a person with scans in different splits, and
    train, val and test cases without a label, and files that lie apart in other programs alone. Only worth a warning:
    headers that other programs read differently, and voxels or volumes of a size that no scan of a body part has.
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
    with silent_itk(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda job: inspect_case(job[0], job[1], labels, voxels), jobs)
        hidden = not console.is_terminal
        found = list(track(results, "Checking the data", len(jobs), console=console, disable=hidden, transient=True))
    findings = [finding for result in found for finding in result.findings]
    findings += [*duplicates(found), *leaks(found)]
    findings += people_in_two_splits(result.row for result in found if result.row.split in LABELLED)
    faults = [finding for finding in findings if finding.is_fault]
    warnings = [finding for finding in findings if not finding.is_fault]
    return CheckReport([result.row for result in found], faults, warnings)
