"""Exports risk maps in the scan's own geometry, so that viewers overlay them on the scan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from riskft.data.io.native import to_native, write_native
from riskft.data.io.volumes import read_volume
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case
from riskft.errors import InputError, first_few
from riskft.files import csv_text, safe_name
from riskft.risk.forward import counted_target
from riskft.risk.store import RiskStore

COLUMNS = (
    "subject",
    "class_name",
    "voxels",
    "mean_hardness_nats",
    "p95_hardness_nats",
    "max_hardness_nats",
    "mean_weight",
)
SummaryRow = tuple[str, str, int, float, float, float, float]


def refuse_existing(folder: Path, cases: Sequence[Case], overwrite: bool) -> None:
    """Raises InputError naming the files that an export would overwrite, unless that is allowed.

    Files of the cases are never overwritten: earlier maps may be images of the data set.
    """
    targets = [path for case in cases for path in _targets(folder, case.subject)] + [folder / "risk_summary.csv"]
    own = {file.resolve() for case in cases for file in case.files}
    if taken := [str(path) for path in targets if path.resolve() in own]:
        raise InputError("These files are images or labels of the data set. Choose another --out:", first_few(taken))
    existing = [str(path) for path in targets if path.exists()]
    if existing and not overwrite:
        raise InputError("These files exist. Add --overwrite true, or choose another --out:", first_few(existing))


def export_case(folder: Path, store: RiskStore, case: PreparedCase, class_names: Sequence[str]) -> list[SummaryRow]:
    """Writes a case's ``<subject>_weight.nii.gz`` and ``<subject>_hardness.nii.gz`` (nats) on the scan's own grid.

    Both are 0 where the scan was cropped. Returns the case's rows of ``risk_summary.csv``, one per class (background
    first), from the prepared grid.
    """
    hardness, affine = store.read_hardness(case.subject)
    weight = torch.from_numpy(np.asarray(read_volume(store.weight_path(case.subject))[0], dtype=np.float32))
    volumes = to_native(torch.stack([weight, hardness]), affine, case.case)
    for path, volume in zip(_targets(folder, case.subject), volumes, strict=True):
        write_native(path, volume.numpy(), case.case)
    label = counted_target(case, bool(store.inputs.get("mask")))
    rows: list[SummaryRow] = []
    for index, name in enumerate(class_names):
        inside = label == index
        values = hardness[inside].double().numpy()
        if values.size:
            spread = (float(values.mean()), float(np.percentile(values, 95)), float(values.max()))
            rows.append((case.subject, name, int(values.size), *spread, float(weight[inside].double().mean())))
        else:
            rows.append((case.subject, name, 0, *(float("nan"),) * 3, float("nan")))
    return rows


def summary_csv(rows: Sequence[SummaryRow]) -> str:
    """Returns the CSV text of the summary, sorted by subject."""
    ordered = sorted(rows, key=lambda row: row[0])
    return csv_text(COLUMNS, [[*row[:3], *(f"{value:.6g}" for value in row[3:])] for row in ordered])


def _targets(folder: Path, subject: str) -> tuple[Path, Path]:
    name = safe_name(subject)
    return folder / f"{name}_weight.nii.gz", folder / f"{name}_hardness.nii.gz"
