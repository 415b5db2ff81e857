"""Looks at a scan with a network: its segmentation, the expected risk of each voxel, and the scan's features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from monai.inferers import Inferer
from torch import Tensor, nn

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.native import native_grid
from riskft.data.patches.batch import VolumeBatch, read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.estimate.calibration import risk_map
from riskft.estimate.table import mean_risk
from riskft.evaluation.cases import native_segmentation, spacing_of
from riskft.label_next.features import FeatureMeans
from riskft.source.network import SourceNetwork
from riskft.training.case_estimates import CaseEstimates
from riskft.training.module import RiskModule

#: Share of the voxels that stand for a scan without predicted foreground: those of the highest expected risk.
RISKIEST = 0.001


@dataclass(frozen=True)
class Look:
    """What a network says about a scan."""

    risk: float  #: Mean expected risk in and near the predicted foreground, 0 to 1.
    dice: float  #: Expected Dice; NaN for a source, whose classes are others.
    features: npt.NDArray[np.float64]  #: (F,), see ``FeatureMeans``.
    classes: npt.NDArray[np.uint8]  #: The predicted classes, or states of a source, (X, Y, Z) on the scan's own grid.
    risks: npt.NDArray[np.float32]  #: Each voxel's expected risk, on the same grid.


@dataclass(frozen=True)
class Viewer:
    """A network on its device, which segments whole scans."""

    trainer: Trainer  #: Its device and precision are used.
    data: RiskDataModule
    network: nn.Module
    head: tuple[str, ...]  #: Names of the modules that give the outputs.
    logits: Callable[[Tensor], Tensor]  #: Patches (B, C, *spatial) -> logits (B, K, *spatial).
    states: Callable[[Tensor], Tensor]  #: Logits -> probabilities, of which the first is the background's.
    inferer: Inferer
    names: tuple[str, ...]  #: Of the classes or states, background first.
    estimates: CaseEstimates | None = None  #: The calibrated risk of a fine-tuned network.

    @classmethod
    def of_module(
        cls, trainer: Trainer, module: RiskModule, data: RiskDataModule, estimates: CaseEstimates
    ) -> "Viewer":
        """Returns a fine-tuned network, and calibrates its risk."""
        trainer.precision_plugin.convert_module(module.eval()).to(trainer.strategy.root_device)
        estimates.start(trainer, module, data)
        return cls(
            trainer,
            data,
            module.network,
            tuple(module.head),
            lambda patch: module.logits(module.ordered(patch)),
            lambda logits: logits.softmax(1),
            module.inferer,
            tuple(module.class_names),
            estimates,
        )

    @classmethod
    def of_source(cls, trainer: Trainer, source: SourceNetwork, data: RiskDataModule) -> "Viewer":
        """Returns a source network as it is."""
        trainer.precision_plugin.convert_module(source.network).to(trainer.strategy.root_device)
        channels = source.class_names or tuple(f"channel {number}" for number in range(source.channels))
        return cls(
            trainer,
            data,
            source.network,
            source.last,
            lambda patch: source.read(source.network, patch)[0],
            source.output.states,
            source.inferer,
            source.output.state_names(channels),
        )

    @torch.no_grad()
    def look(self, case: PreparedCase) -> Look:
        """Segments a scan; raises InputError if a file is damaged, or the network gives NaN or infinite values."""
        own = read_case(case)
        volume = VolumeBatch(own.subject, own.image.to(self.trainer.strategy.root_device), own.label, own.affine)
        precision, means = self.trainer.precision_plugin, FeatureMeans()
        with precision.predict_step_context(), means.watching(self.network, self.head):

            def logits(patch: Tensor) -> Tensor:
                found = self.logits(patch)
                means.add(self.states(found.float()))
                return found

            whole: Any = self.inferer(precision.convert_input(volume.image), logits)
        probabilities, features = self.states(whole.float())[0], means.vector()
        del whole
        if not (torch.isfinite(probabilities.sum()) and np.isfinite(features).all()):
            raise InputError(f"{case.subject}: the network gives NaN or infinite values. Check the scan.")
        found = native_segmentation(probabilities, volume.affine, case.case, keep_probabilities=True)
        if self.estimates is not None:
            estimate, risks = self.estimates.of(case.case, self.data, found, volume)
            risk, dice = estimate.risk, estimate.dice.value
        else:
            risks = risk_map(np.asarray(found.probabilities), None, None)
            risk, dice = mean_risk(risks, found.classes, spacing_of(native_grid(case.case)[1])), math.nan
        if math.isnan(risk):  # no predicted foreground
            few = max(1, round(RISKIEST * risks.size))
            risk = float(np.partition(risks.ravel(), -few)[-few:].mean(dtype=np.float64))
        return Look(risk, dice, features, found.classes, risks)
