"""Risk-gated distillation: the source teaches the target where the risk map says that it is right."""

from collections.abc import Sequence

import torch
from torch import Tensor

from riskft.compat import lazy_instance, made
from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError
from riskft.losses.weighted import Loss, RiskWeightedLoss, Weight, without_channel
from riskft.risk.leep import MIN_PROBABILITY, class_prior

_FULL = 0.5
"""Largest deviation of an EEP's mass from 1; other voxels were warped in from outside the volume."""


class DistilledLoss(Loss):
    """Adds to a loss the divergence from the source's prediction, where the source can be trusted.

    ::

        L = L' + factor * s * mean_b mean_i g_i KL(EEP_i || p_i),      g_i = exp(-h_i / -log P(y_i))

    with EEP_i the source's prediction over the target's classes and h_i = -log EEP_i(y_i) its hardness. The gate g_i is
    1 where the source is sure of the label, 1/e where it knows no more than the class prior, and 0 where it is sure of
    another class. Phase 1 keeps the EEP beside the maps (float16); it is cropped and warped with the patch, so a step
    runs no source network. After warping it is rescaled to sum to 1; without mass, outside the volume, nothing is
    distilled. With deep supervision, only the finest output is distilled. s is the fraction of the labels' entropy
    that the source explains, 1 + LEEP / H(Y): an uninformative source teaches nothing. Not from the paper.

    Args:
        loss: The loss that the term is added to.
        factor: Lambda; 0 leaves the loss unchanged.
        gated: Use the gate; false sets g = 1, plain distillation.
        temper: Use s; false sets s = 1.
        ignore_index: Label of ignored voxels.
    """

    def __init__(
        self,
        loss: Loss = lazy_instance(RiskWeightedLoss),  # noqa: B008
        factor: float = 1.0,
        gated: bool = True,
        temper: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        if factor < 0:
            raise InputError(f"Expected argument `factor` to be at least 0, but got {factor}")
        self.loss = made(loss)
        self.factor = factor
        self.gated = gated
        self.temper = temper
        self.ignore_index = ignore_index
        self._scale: Tensor | None = None
        self._trust = 1.0

    @property
    def needs_eep(self) -> bool:
        """True."""
        return True

    def take_phase_1(self, joint: Tensor, knowledge: float) -> None:
        """Takes P(y) from the joint, and s."""
        self.loss.take_phase_1(joint, knowledge)
        self._scale = gate_scale(joint)
        self._trust = knowledge if self.temper else 1.0

    def settle(self) -> None:
        """Settles the inner loss."""
        self.loss.settle()

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        weight: Weight = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss; see ``Loss``.

        Raises:
            InputError: If phase 1, which makes the EEP, did not run.
            ValueError: If shapes disagree.
        """
        if eep is None or self._scale is None:
            raise InputError("riskft.DistilledLoss needs phase 1: add riskft.RiskMapCallback to trainer.callbacks.")
        result: Tensor = self.loss(logits, target, weight, foreground_fraction, eep)
        finest = logits if isinstance(logits, Tensor) else logits[0]
        self._scale = self._scale.to(finest.device)
        return result + self.factor * self._trust * gated_divergence(
            finest, target, eep, self._scale if self.gated else None, self.ignore_index
        )


def gate_scale(joint: Tensor) -> Tensor:
    """Returns -log P(y), (Y,) float32, the hardness at which the gate is 1/e, from a joint (Y, Z) of any scale.

    Never 0, so that with a single class in the data a sure source's gate stays 1.
    """
    scale = -class_prior(joint.double()).clamp(MIN_PROBABILITY, 1).log()
    return scale.clamp_min(MIN_PROBABILITY).float()


def gated_divergence(logits: Tensor, target: Tensor, eep: Tensor, scale: Tensor | None, ignore_index: int) -> Tensor:
    """Returns mean_b mean_i g_i KL(EEP_i || p_i), the inner mean over a sample's voxels without ignored ones; float32.

    Args:
        logits: (B, Y, *spatial), any floating dtype; converted to float32.
        target: (B, *spatial) or (B, 1, *spatial) integer classes or ``ignore_index``.
        eep: (B, Y, *spatial), of any mass after warping.
        scale: See ``gate_scale``; None for g = 1.
        ignore_index: Label of ignored voxels.

    Raises:
        ValueError: If shapes disagree.
    """
    if eep.shape != logits.shape:
        raise ValueError(f"Expected `eep` of the logits' shape {tuple(logits.shape)}, but got {tuple(eep.shape)}")
    target = without_channel(target, logits, "target").long()
    counted = target != ignore_index
    with torch.no_grad():
        mass = eep.float().sum(1, keepdim=True)
        taught = counted & ((mass - 1).abs() <= _FULL).squeeze(1)
        teacher = (eep.float() / mass.clamp_min(_FULL)).clamp(0, 1)
        index = target.masked_fill(~counted, 0)
        gate = taught.float()
        if scale is not None:
            hardness = -teacher.gather(1, index.unsqueeze(1)).squeeze(1).clamp_min(MIN_PROBABILITY).log()
            gate = gate * torch.exp(-hardness / scale[index])
        own = torch.xlogy(teacher, teacher).sum(1)
    divergence = own - (teacher * logits.float().log_softmax(1)).sum(1)
    return ((gate * divergence).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)).mean()
