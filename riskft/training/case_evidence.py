"""Counts a labelled case's voxels by the entropies of network and EEP, to calibrate the expected risk."""

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.memory import give_back
from riskft.data.io.native import native_grid, to_native
from riskft.data.io.volumes import Affine
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.estimate.evidence import CaseEvidence, Classes, Volume, entropy, evidence_of
from riskft.evaluation.cases import native_label, native_segmentation, spacing_of
from riskft.evaluation.metrics import score_case
from riskft.risk.leep import conditional_from_joint, expected_empirical_prediction
from riskft.training.found_risk import FoundRisk
from riskft.training.module import RiskModule
from riskft.training.segmentation import tested_logits


class EepEntropy:
    """The EEP's entropy on the scan's own grid."""

    def __init__(self, found: FoundRisk, device: torch.device) -> None:
        found.source.network.to(device)
        self._source = found.source.predictor()
        self._conditional = conditional_from_joint(found.joint)

    @torch.no_grad()
    def __call__(self, image: Tensor, affine: Affine, case: Case) -> Volume:
        """Returns the entropy in nats, (X, Y, Z), for an image (1, C, X, Y, Z) on the prepared grid and the device."""
        parts = []
        for states in self._source(image.float()):  # a few planes along x at a time
            eep = expected_empirical_prediction(states[None], self._conditional)[0]
            parts.append(torch.from_numpy(entropy(eep.cpu().numpy())))
        found: Volume = to_native(torch.cat(parts)[None], affine, case)[0].numpy()
        return found


@torch.no_grad()
def predicted(
    trainer: Trainer, module: RiskModule, prepared: PreparedCase, eep: EepEntropy | None
) -> tuple[Volume, Volume | None]:
    """Returns probabilities (K, X, Y, Z), and the EEP's entropy, on the scan's own grid, as ``predict`` does.

    Raises InputError if the network gives NaN or infinite values.
    """
    volume = read_case(prepared)
    probabilities = tested_logits(trainer, module, volume.image).float().softmax(1)[0]
    native = native_segmentation(probabilities, volume.affine, prepared.case, keep_probabilities=True).probabilities
    if native is None:
        raise ValueError("Expected probabilities")
    refuse_unusable(prepared.subject, native)
    del probabilities
    return native, None if eep is None else eep(volume.image.to(module.device), volume.affine, prepared.case)


def evidence_of_labelled(
    trainer: Trainer, module: RiskModule, data: RiskDataModule, prepared: PreparedCase, eep: EepEntropy | None
) -> CaseEvidence:
    """Predicts a labelled case, and counts its voxels by entropy, right and wrong."""
    probabilities, entropies = predicted(trainer, module, prepared, eep)
    truth = native_label(prepared.case, data.labels)
    dice = dice_of(prepared.case, data, probabilities.argmax(0).astype(np.uint8), truth)
    evidence = evidence_of(probabilities, entropies, data.labels.scored, truth, dice)
    give_back()
    return evidence


def refuse_unusable(subject: str, probabilities: Volume) -> None:
    """Raises InputError if a case's probabilities are not finite."""
    if not np.isfinite(probabilities.sum()):
        raise InputError(f"{subject}: the network gives NaN or infinite values. Check the scan.")


def dice_of(case: Case, data: RiskDataModule, prediction: Classes, truth: Classes) -> dict[str, float]:
    """Returns the Dice by class or region on the scan's own grid; see ``score_case``."""
    pair, spacing = (torch.from_numpy(prediction), torch.from_numpy(truth)), spacing_of(native_grid(case)[1])
    scores = score_case(case.subject, *pair, data.class_names, spacing, surface=False, regions=data.regions)
    return {score.class_name: score.dice for score in scores}
