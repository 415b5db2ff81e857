"""The data check: looks at every file before anything is trained on it, and reports all faults in one go."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

from riskft.data.check.case import CheckedCase, inspect_case
from riskft.data.check.copies import duplicates, leaks
from riskft.data.check.header import silent_itk
from riskft.data.check.memory import CheckMemory
from riskft.data.check.people import people_in_two_splits, visits_in_two_splits
from riskft.data.check.report import CheckReport
from riskft.data.check.splits import poor_splits
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.io.grid import TOLERANCE_MM
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, SPLITS, Case

__all__ = ["TOLERANCE_MM", "CheckReport", "FaultKind", "Finding", "WarningKind", "check"]


def check(
    cases: Mapping[str, Sequence[Case]], labels: LabelMap, *, voxels: bool = True, memory: CheckMemory | None = None
) -> CheckReport:
    """Opens the files of all cases and reports every fault; a faulty file never hides another one.

    Found in any case: missing and unreadable files, files that are not 3-D (further axes of length 1 are fine) or do
    not have the channel that is to be read, zero or non-finite spacing, singular affines, shapes and affines that
    differ within a case by more than ``TOLERANCE_MM`` (Analyze files have no affine to speak of, which is fine), a
    subject given twice, an image given to subjects of different splits, a person with scans in different splits, and
    train, val and test cases without a label, and files that lie apart in other programs alone. Only worth a warning:
    headers that other programs read differently, and voxels or volumes of a size that no scan of a body part has.
    Found only with ``voxels``: files cut off behind the header, NaN and infinite voxels and such as 32-bit numbers
    cannot hold, constant images, label values that are not whole or in no class, training cases none of which has a
    voxel of any class, and copies of an image in different splits, whatever the copies' names, formats, data types and
    compression. Only worth a warning: a training case without foreground, a case that is ignored wholly,
    foreground in the background around the body, and names in different splits that look like one person's visits.

    Args:
        cases: The cases of each split, as ``Split.assign`` returns them.
        labels: The task's label map, completed by ``LabelMap.with_known(reader.known_labels)``.
        voxels: Whether to read the voxels. Without, only headers are read.
        memory: Knows the cases that were looked at before, which are not read again; None to read all.
    """
    jobs = [(split, case) for split in SPLITS for case in cases.get(split, ())]
    console = Console(stderr=True)
    with silent_itk(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def look(job: tuple[str, Case]) -> CheckedCase:
            known = memory.recall(*job, labels) if memory is not None else None
            return inspect_case(*job, labels, voxels) if known is None else known

        results = pool.map(look, jobs)
        hidden = not console.is_terminal
        found = list(track(results, "Checking the data", len(jobs), console=console, disable=hidden, transient=True))
    if memory is not None:
        for (_, case), result in zip(jobs, found, strict=True):
            memory.keep(case, labels, result)
        memory.save()
    findings = [finding for result in found for finding in result.findings]
    findings += [*duplicates(found), *leaks(found)]
    labelled = [result.row for result in found if result.row.split in LABELLED]
    findings += [*people_in_two_splits(labelled), *visits_in_two_splits(labelled)]
    findings += poor_splits(cases, [result.row for result in found], labels)
    faults = [finding for finding in findings if finding.is_fault]
    warnings = [finding for finding in findings if not finding.is_fault]
    return CheckReport([result.row for result in found], faults, warnings)
