"""The data check: opens every new or changed file before training and reports all faults at once."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riskft.data.check.across import duplicates, leaks, people_in_two_splits, poor_splits, visits_in_two_splits
from riskft.data.check.case import CheckedCase, inspect_case
from riskft.data.check.header import silent_itk
from riskft.data.check.report import CheckReport, CheckRow
from riskft.data.findings import FaultKind, Finding, WarningKind
from riskft.data.io.formats import parts
from riskft.data.io.grid import TOLERANCE_MM
from riskft.data.labels import LabelMap
from riskft.data.records import LABELLED, SPLITS, Case
from riskft.errors import InputError
from riskft.files import fingerprint, json_or_none, write_json
from riskft.progress import track

CHECK_VERSION = 2  #: Raise it when you add a check, so that every case is checked again.

__all__ = ["TOLERANCE_MM", "CheckReport", "FaultKind", "Finding", "WarningKind", "check"]


class CheckMemory:
    """Remembers cases without faults by their files' paths, sizes and times, and by the label map.

    They are kept in a JSON file, which is created if it is missing and left alone if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        self._new = False
        if isinstance(known := json_or_none(path), dict):  # otherwise the scans are read again
            self._known = known

    def recall(self, split: str, case: Case, labels: LabelMap) -> CheckedCase | None:
        """Returns an earlier result without grey values and background; None if the case is new or has changed."""
        key = _key(split, case, labels)
        known: Mapping[str, Any] | None = self._known.get(key) if key else None
        if known is None:
            return None
        row = CheckRow(case.subject, split, case.person, **known["row"])
        findings = [
            Finding(WarningKind(kind), case.subject, path and Path(path), message)
            for kind, path, message in known["warnings"]
        ]
        return CheckedCase(row, findings, {identity: Path(path) for identity, path in known["images"].items()})

    def keep(self, case: Case, labels: LabelMap, result: CheckedCase) -> None:
        """Remembers a case, unless it has a fault."""
        key = _key(result.row.split, case, labels)
        if key is None or any(finding.is_fault for finding in result.findings):
            return
        row = result.row
        self._known[key] = {
            "row": {name: getattr(row, name) for name in ("shape", "spacing", "orientation", "voxels")},
            "warnings": [
                (found.kind.value, found.path and str(found.path), found.message) for found in result.findings
            ],
            "images": {identity: str(path) for identity, path in result.images.items()},
        }
        self._new = True

    def save(self) -> None:
        """Writes the file if there is something new."""
        if self._new:
            with suppress(InputError):  # the cache may be read-only
                write_json(self.path, self._known)
            self._new = False


def _key(split: str, case: Case, labels: LabelMap) -> str | None:
    try:
        files = [
            (str(part.resolve()), (status := part.stat()).st_size, status.st_mtime_ns)
            for path in case.files
            for part in parts(path)
        ]
    except OSError:
        return None
    return fingerprint(
        {
            "version": CHECK_VERSION,
            "case": [split, case.subject, [str(path) for path in case.files]],
            "channels": [[name, str(path), case.channels.get(name)] for name, path in case.images.items()],
            "labelled": case.label is not None,
            "labels": {**asdict(labels), "classes": list(labels.classes.items())},
            "files": files,
        }
    )


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
