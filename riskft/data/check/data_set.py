"""The data check: opens every file before training and reports all faults at once."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from riskft.data.check.across import duplicates, leaks, people_in_two_splits, poor_splits, visits_in_two_splits
from riskft.data.check.case import CheckedCase, inspect_case
from riskft.data.check.header import silent_itk
from riskft.data.check.memory import CheckMemory
from riskft.data.check.report import CheckReport
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.io.grid import TOLERANCE_MM
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, SPLITS, Case
from riskft.progress import track

__all__ = ["TOLERANCE_MM", "CheckReport", "FaultKind", "Finding", "WarningKind", "check"]


def check(
    cases: Mapping[str, Sequence[Case]], labels: LabelMap, *, voxels: bool = True, memory: CheckMemory | None = None
) -> CheckReport:
    """Opens the files of all cases by split and reports every fault; a faulty file never hides another one.

    ``FaultKind`` and ``WarningKind`` list what it can find. Faults in voxels and label values, and copies of an image
    under other names or in other formats, are found only with ``voxels``. Cases in the ``memory`` are not read again.
    The label map is one completed by ``LabelMap.with_known(reader.known_labels)``.
    """
    jobs = [(split, case) for split in SPLITS for case in cases.get(split, ())]
    with silent_itk(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def look(job: tuple[str, Case]) -> CheckedCase:
            known = memory.recall(*job, labels) if memory is not None else None
            return inspect_case(*job, labels, voxels) if known is None else known

        found = list(track(pool.map(look, jobs), len(jobs), "Checking the data"))
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
