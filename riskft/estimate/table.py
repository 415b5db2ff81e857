"""The table of predicted cases, the riskiest first, and where a prediction's foreground is near."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter

from riskft.estimate.dice import Interval
from riskft.estimate.evidence import Classes, Volume
from riskft.files import csv_text

NEAR_MM = 5.0  #: The neighbourhood of the predicted foreground, along each axis.


@dataclass(frozen=True)
class CaseEstimate:
    """What is estimated of a predicted case."""

    subject: str
    risk: float  #: Mean expected risk in and near the predicted foreground; NaN without any.
    dice: Interval  #: Mean over classes or regions.
    by_class: Mapping[str, Interval]  #: Dice by class or region.
    ml: Mapping[str, float]  #: Predicted volume by class or region.

    def to_json(self) -> dict[str, Any]:
        """Returns the estimate as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "CaseEstimate":
        """Reads what ``to_json`` returned."""
        by_class = {name: Interval(*values) for name, values in content["by_class"].items()}
        return cls(content["subject"], content["risk"], Interval(*content["dice"]), by_class, content["ml"])


def near_foreground(classes: Classes, spacing: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Returns which voxels (X, Y, Z) are at most ``NEAR_MM`` from the foreground along each axis, voxels in mm."""
    reach = [min(math.ceil(NEAR_MM / step), size) for step, size in zip(spacing, classes.shape, strict=True)]
    dilated = maximum_filter((classes > 0).astype(np.uint8), [2 * one + 1 for one in reach], mode="constant")
    near: npt.NDArray[np.bool_] = dilated > 0
    return near


def mean_risk(risk: Volume, classes: Classes, spacing: Sequence[float]) -> float:
    """Returns the mean risk in and near the predicted foreground; NaN without any."""
    near = near_foreground(classes, spacing)
    return float(risk[near].mean(dtype=np.float64)) if near.any() else math.nan


def volumes_ml(classes: Classes, scored: Mapping[str, Sequence[int]], voxel_ml: float) -> dict[str, float]:
    """Returns the volume of each class or region, ml."""
    # plane by plane, because ``bincount`` makes a copy with 8 bytes per voxel
    counts = np.sum([np.bincount(plane.ravel(), minlength=256) for plane in classes], axis=0)
    return {name: float(counts[list(indices)].sum()) * voxel_ml for name, indices in scored.items()}


def cases_csv(cases: Iterable[CaseEstimate], names: Sequence[str]) -> str:
    """Returns the table: the highest mean risk first, and before all those without predicted foreground."""
    columns = ["subject", "mean_expected_risk", "expected_dice", "expected_dice_low", "expected_dice_high"]
    for name in names:
        columns += [f"expected_dice_{name}", f"expected_dice_{name}_low", f"expected_dice_{name}_high", f"ml_{name}"]
    ordered = sorted(cases, key=lambda case: (-math.inf if math.isnan(case.risk) else -case.risk, case.subject))
    rows = []
    for case in ordered:
        risk = "" if math.isnan(case.risk) else f"{case.risk:.4f}"
        row = [case.subject, risk, *_digits(case.dice)]
        for name in names:
            row += [*_digits(case.by_class[name]), f"{case.ml[name]:.3f}"]
        rows.append(row)
    return csv_text(columns, rows)


def _digits(found: Interval) -> list[str]:
    return ["" if math.isnan(value) else f"{value:.3f}" for value in found]
