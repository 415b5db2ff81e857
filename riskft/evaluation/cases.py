"""Scores a case: the network's segmentation against the label, on the prepared grid or the scan's own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.io.native import native_grid, to_native
from riskft.data.io.volumes import Affine, read_volume
from riskft.data.labels import LabelMap
from riskft.data.patches.batch import VolumeBatch
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.metrics import CaseScore, score_case


class Segmentation(NamedTuple):
    """A network's segmentation of a case.

    Attributes:
        subject: The case.
        classes: (X, Y, Z) uint8.
        probabilities: (Y, X, Y, Z) float32, or None if they are not needed.
    """

    subject: str
    classes: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32] | None = None


def native_segmentation(
    probabilities: Tensor, affine: Affine, case: Case, keep_probabilities: bool = False
) -> Segmentation:
    """Resamples probabilities (Y, X, Y, Z) linearly to the scan's own grid, then takes the most probable class.

    This order keeps thin structures and smooth borders. Cropped voxels are background. ``affine`` is the prepared
    grid's, (4, 4).
    """
    native = to_native(probabilities, affine, case)
    classes = native.argmax(0).to(torch.uint8).numpy()
    if not keep_probabilities:
        return Segmentation(case.subject, classes)
    native[0] += 1 - native.sum(0)  # cropped voxels are background
    return Segmentation(case.subject, classes, native.numpy())


def native_label(case: Case, labels: LabelMap) -> npt.NDArray[np.uint8]:
    """Reads a case's label from disk and returns its classes, (X, Y, Z); 255 is ignored.

    Raises:
        InputError: If the case has no label, or a label value is in no class.
    """
    if case.label is None:
        raise InputError(f"{case.subject}: a test case needs a label.")
    return labels.to_classes(read_volume(case.label)[0])


def score_native(
    segmentation: Segmentation,
    case: Case,
    labels: LabelMap,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]],
) -> list[CaseScore]:
    """Scores a segmentation on the scan's own grid against ``native_label``; see ``score_case``."""
    prediction, truth = torch.from_numpy(segmentation.classes), torch.from_numpy(native_label(case, labels))
    return score_case(case.subject, prediction, truth, class_names, spacing_of(native_grid(case)[1]), regions=regions)


def score_prepared(
    prediction: Tensor,
    volume: VolumeBatch,
    class_names: Sequence[str],
    regions: Mapping[str, Sequence[int]],
    surface: bool,
) -> list[CaseScore]:
    """Scores classes (X, Y, Z) on the prepared grid; raises InputError if there is no label. See ``score_case``."""
    truth, spacing = volume.truth(), spacing_of(volume.affine)
    return score_case(volume.subject, prediction.to(truth.device), truth, class_names, spacing, surface, regions)


def spacing_of(affine: Affine) -> tuple[float, float, float]:
    """Returns the voxel size in mm along the axes of a voxel-to-mm affine, (4, 4)."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return x, y, z


def voxel_ml(affine: Affine) -> float:
    """Returns the volume of a voxel in ml."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000
