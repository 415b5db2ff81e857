"""The results of a run's phase 1, to apply to other cases, and the panel of one case."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.damage import files_named
from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.evaluation.cases import spacing_of
from riskft.files import read_mapping
from riskft.plots.heatmaps import Classes, FloatVolume, Panel
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.leep import class_prior, conditional_from_joint, expected_empirical_prediction, hardness
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.run.folder import RunFolder
from riskft.source.network import SourceNetwork
from riskft.training.module import RiskModule
from riskft.training.risk_maps import phase_inputs

#: What P(y|z) depends on, except the mask setting, which is read from the run.
CHECKED = ("source", "source architecture", "training data and preprocessing", "classes", "inference")

Maps = tuple[RiskStore, RiskSummary]


@dataclass(frozen=True)
class FoundRisk:
    """The results of phase 1 and its source network."""

    source: SourceNetwork  #: The source network on the CPU, with inversion if phase 1 used it.
    joint: Tensor  #: (Y, Z) float64, unnormalised.
    use_mask: bool  #: Whether voxels outside the body are ignored.
    summary: Mapping[str, Any]  #: The run folder's ``risk/summary.json``.
    manifest: Mapping[str, Any]  #: The run folder's ``risk/manifest.json``.

    def stale(self, module: RiskModule, data: RiskDataModule, checked: tuple[str, ...] = CHECKED) -> list[str]:
        """Returns one line per ``checked`` input of phase 1 that has changed since, given data with prepared splits."""
        now = json.loads(json.dumps(phase_inputs(module, data, self.source, self.use_mask)))
        return [
            f"P(y|z) in risk/summary.json was made with another {name} than config.yaml gives now"
            for name in checked
            if now[name] != self.manifest.get(name)
        ]


def find_risk(run: RunFolder, module: RiskModule) -> FoundRisk:
    """Reads the results of phase 1 from a run folder, and loads the source network.

    Raises InputError if the run had no phase 1, or the source network can no longer be loaded.
    """
    summary, manifest = (_json(path) for path in (run.risk.summary, run.risk.manifest))
    source = module.load_source()
    if manifest.get("inverted") and not source.inverted:  # phase 1 found that inversion makes it more informative
        source = source.with_inversion()
    joint = RiskSummary.from_json(summary).joint
    return FoundRisk(source, joint, bool(manifest.get("mask")), summary, manifest)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"There is no {path}: this run had no phase 1.")
    return read_mapping(path)


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
