"""The panel of one case: its image, label, risk maps and prediction."""

from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.evaluation.cases import spacing_of
from riskft.plots.heatmaps import Classes, FloatVolume, Panel
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.leep import class_prior, conditional_from_joint, expected_empirical_prediction, hardness
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.training.found_risk import FoundRisk
from riskft.training.module import RiskModule

Maps = tuple[RiskStore, RiskSummary]


def read_panel(maps: Maps, case: PreparedCase, prediction: Classes | None) -> Panel:
    """Reads the panel of a phase 1 case; the prediction is (X, Y, Z) uint8 on the prepared grid, or None."""
    store, summary = maps
    return _panel(
        case,
        hardness=store.read_hardness(case.subject)[0].numpy(),
        expected_class=np.asarray(read_volume(store.expected_class_path(case.subject))[0], dtype=np.uint8),
        weight=np.asarray(read_volume(store.weight_path(case.subject))[0], dtype=np.float32),
        prediction=prediction,
        joint=summary.joint,
    )


@torch.no_grad()
def unseen_panel(found: FoundRisk, module: RiskModule, case: PreparedCase, prediction: Classes) -> Panel:
    """Computes the panel of a labelled case outside phase 1; the source network is on the module's device."""
    states = source_probabilities(case, found.source.predictor(), module.device).cpu()
    with files_named(case.subject, case.files):
        target = counted_target(case, found.use_mask)
    conditional = conditional_from_joint(found.joint)
    return _panel(
        case,
        hardness=hardness(states, target[None], conditional, IGNORE_INDEX)[0].numpy(),
        expected_class=expected_empirical_prediction(states, conditional)[0].argmax(0).to(torch.uint8).numpy(),
        weight=None,
        prediction=prediction,
        joint=found.joint,
    )


def _panel(
    case: PreparedCase,
    *,
    hardness: FloatVolume,
    expected_class: Classes,
    weight: FloatVolume | None,
    prediction: Classes | None,
    joint: Tensor,
) -> Panel:
    volume = read_case(case)
    truth = volume.truth().numpy()
    prior = np.append(class_prior(joint).clamp_min(1e-12).log().numpy(), [0.0])
    relative = hardness + prior[np.where(truth == IGNORE_INDEX, len(prior) - 1, truth)]
    axes = nib.io_orientation(volume.affine)

    def shown(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        turned: npt.NDArray[Any] = nib.apply_orientation(array, axes)  # to RAS, whatever orientation the network uses
        return turned

    return Panel(
        subject=case.subject,
        image=shown(volume.image[0, 0].numpy()),
        truth=shown(truth),
        hardness=shown(hardness),
        relative_to_prior=shown(relative.astype(np.float32)),
        weight=None if weight is None else shown(weight),
        prediction=None if prediction is None else shown(prediction),
        expected_class=shown(expected_class),
        spacing=spacing_of(volume.affine @ nib.orientations.inv_ornt_aff(axes, truth.shape)),
    )
