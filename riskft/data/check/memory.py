"""Remembers the cases that passed the check, so that only new and changed files are read."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riskft.data.check.case import CheckedCase
from riskft.data.check.report import CheckRow
from riskft.data.findings import Finding, WarningKind
from riskft.data.io.formats import parts
from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.files import fingerprint, json_or_none, write_json

CHECK_VERSION = 2  #: Raise it when you add a check, so that every case is checked again.


class CheckMemory:
    """Remembers cases without faults by their files' paths, sizes and times, and by the label map.

    They are kept in a JSON file, created if missing, left alone if it cannot be written.
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
