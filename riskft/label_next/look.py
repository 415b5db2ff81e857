"""Looks at a scan with a network: its segmentation, the expected risk of each voxel, and the scan's features."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Trainer
from monai.inferers import Inferer
from torch import Tensor, nn

from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.estimate.calibration import risk_map
from riskft.estimate.table import mean_risk
from riskft.evaluation.cases import spacing_of
from riskft.label_next.features import FeatureMeans
from riskft.source.network import SourceNetwork
from riskft.training.module import RiskModule

#: Share of the voxels that stand for a scan without predicted foreground: those of the highest expected risk.
RISKIEST = 0.001


@dataclass(frozen=True)
class Look:
    """What a network says about a scan, on the prepared grid."""

    risk: float  #: Mean expected risk in and near the predicted foreground, 0 to 1.
    features: npt.NDArray[np.float64]  #: (F,), see ``FeatureMeans``.
    classes: npt.NDArray[np.uint8]  #: The predicted classes, or states of a source, (X, Y, Z).
    risks: npt.NDArray[np.float32]  #: Each voxel's expected risk, (X, Y, Z).


@dataclass(frozen=True)
class Viewer:
    """A network on its device, which segments whole scans."""

    trainer: Trainer  #: Its device and precision are used.
    network: nn.Module
    head: tuple[str, ...]  #: Names of the modules that give the outputs.
    logits: Callable[[Tensor], Tensor]  #: Patches (B, C, *spatial) -> logits (B, K, *spatial).
    states: Callable[[Tensor], Tensor]  #: Logits -> probabilities, of which the first is the background's.
    inferer: Inferer
    names: tuple[str, ...]  #: Of the classes or states, background first.

    @classmethod
    def of_module(cls, trainer: Trainer, module: RiskModule) -> "Viewer":
        """Returns a fine-tuned network."""
        trainer.precision_plugin.convert_module(module.eval()).to(trainer.strategy.root_device)
        return cls(
            trainer,
            module.network,
            tuple(module.head),
            lambda patch: module.logits(module.ordered(patch)),
            lambda logits: logits.softmax(1),
            module.inferer,
            tuple(module.class_names),
        )

    @classmethod
    def of_source(cls, trainer: Trainer, source: SourceNetwork) -> "Viewer":
        """Returns a source network as it is."""
        trainer.precision_plugin.convert_module(source.network).to(trainer.strategy.root_device)
        channels = source.class_names or tuple(f"channel {number}" for number in range(source.channels))
        return cls(
            trainer,
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
        volume = read_case(case)
        precision = self.trainer.precision_plugin
        with precision.predict_step_context(), self._watched() as means:

            def logits(patch: Tensor) -> Tensor:
                found = self.logits(patch)
                means.add(self.states(found.float()))
                return found

            image = precision.convert_input(volume.image.to(self.trainer.strategy.root_device))
            whole: Any = self.inferer(image, logits)
        probabilities = self.states(whole.float())[0].cpu().numpy()
        features = means.vector()
        if not (np.isfinite(probabilities).all() and np.isfinite(features).all()):
            raise InputError(f"{case.subject}: the network gives NaN or infinite values. Check the scan.")
        risks = risk_map(probabilities, None, None)
        classes = probabilities.argmax(0).astype(np.uint8)
        risk = mean_risk(risks, classes, spacing_of(volume.affine))
        if np.isnan(risk):  # no predicted foreground
            few = max(1, round(RISKIEST * risks.size))
            risk = float(np.partition(risks.ravel(), -few)[-few:].mean(dtype=np.float64))
        return Look(risk, features, classes, risks)

    @contextmanager
    def _watched(self) -> Iterator[FeatureMeans]:
        means = FeatureMeans()
        with means.watching(self.network, self.head):
            yield means
