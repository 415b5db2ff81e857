"""The map-weighted segmentation loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """Returns w_i CE_i, (B, *spatial) float32, 0 at ignored voxels.

    Args:
        logits: (B, Y, *spatial), any floating dtype; converted to float32.
        target: (B, *spatial) int64 classes or ``ignore_index``.
        weight: (B, *spatial) weights, or None for 1.
        ignore_index: Label of ignored voxels.
    """
    entropy = nnf.cross_entropy(logits.float(), target, ignore_index=ignore_index, reduction="none")
    return entropy if weight is None else entropy * weight.float()


def soft_dice_loss(logits: Tensor, target: Tensor, ignore_index: int, smooth: float = 1e-5) -> Tensor:
    """Returns 1 - soft Dice averaged over samples and classes, background included, as MONAI's DiceLoss(softmax=True).

    Args:
        logits: (B, Y, *spatial), any floating dtype; converted to float32.
        target: (B, *spatial) int64 classes or ``ignore_index``.
        ignore_index: Label of ignored voxels, excluded from both sums.
        smooth: Added to numerator and denominator.

    Returns:
        Scalar float32 in [0, 1].
    """
    counted = target != ignore_index
    truth = nnf.one_hot(target.masked_fill(~counted, 0), logits.shape[1]).movedim(-1, 1)
    truth = (truth * counted.unsqueeze(1)).float().flatten(2)
    probs = (logits.float().softmax(1) * counted.unsqueeze(1)).flatten(2)
    overlap = 2 * (probs * truth).sum(2) + smooth
    return 1 - (overlap / (probs.sum(2) + truth.sum(2) + smooth)).mean()


class Loss(nn.Module, ABC):
    """A training loss. Losses that take another one (``RefreshedLoss``, ``DistilledLoss``) can be nested."""

    @property
    def needs_eep(self) -> bool:
        """Whether batches must carry the EEP, so that phase 1 keeps it."""
        return False

    @property
    def needs_length(self) -> bool:
        """Whether an option is a fraction of the run, so that ``runs_for`` must be called."""
        return any(inner.needs_length for inner in self.children() if isinstance(inner, Loss))

    def runs_for(self, batches: float) -> None:
        """Takes the length of the run, and passes it to inner losses; called when training starts.

        Args:
            batches: Batches of each process in the whole run, including those before a resumed checkpoint; infinite if
                the run has no set end.
        """
        for inner in self.children():
            if isinstance(inner, Loss):
                inner.runs_for(batches)

    def take_phase_1(self, joint: Tensor, knowledge: float) -> None:
        """Takes the results of phase 1; called before training, if there is a phase 1.

        Args:
            joint: P(y, z), (Y, Z) of any scale.
            knowledge: The fraction of the labels' entropy that the source explains, in [0, 1].
        """

    def settle(self) -> None:
        """Makes the loss's counts equal on all processes; all of them call it before a checkpoint is written."""

    @abstractmethod
    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        weight: Tensor | None = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss of a batch of patches, scalar float32.

        Args:
            logits: (B, Y, *spatial), or a sequence of such with the finest first (deep supervision).
            target: (B, *spatial) or (B, 1, *spatial) integer classes or the ignored label.
            weight: Risk weights of the target's shape, or None for 1 everywhere.
            foreground_fraction: (B,) the volumes' foreground fractions.
            eep: The EEP, (B, Y, *spatial), or None.
        """


class RiskWeightedLoss(Loss):
    """Cross-entropy weighted by the risk map, plus an optional Dice term.

    ::

        L = mean_b [ 1/N_b * sum_i w_i CE_i ] + dice_weight * Dice

    with N_b the sample's foreground voxels (``divisor="foreground"``, as in the paper) or all its voxels
    (``"voxels"``: the usual DiceCE for w = 1). The choice does not change relative weights within an image; it
    rescales the loss and reweights images against each other, and so changes the effect of gradient clipping.

    A patch without foreground must not divide by 1: N_b is then the volume's foreground fraction times the patch's
    voxels. It is never less than ``min_foreground`` of the voxels, so that patches with few foreground voxels do not
    explode. Sums are in float32 for any precision of the logits.

    Args:
        divisor: ``foreground`` or ``voxels``.
        dice_weight: Factor of the Dice term; 0 omits it.
        ce_weight: Factor of the cross-entropy term.
        min_foreground: Smallest N_b as a fraction of the sample's voxels, without ignored ones.
        ignore_index: Label of ignored voxels.
        deep_supervision_decay: Weight of each coarser output relative to the next finer one.
        use_map: Weight by the map. With false, an attached map only guides where patches are sampled.
    """

    def __init__(
        self,
        divisor: Literal["foreground", "voxels"] = "voxels",
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        min_foreground: float = 1e-3,
        ignore_index: int = IGNORE_INDEX,
        deep_supervision_decay: float = 0.5,
        use_map: bool = True,
    ) -> None:
        super().__init__()
        if divisor not in ("foreground", "voxels"):
            raise InputError(f"Expected argument `divisor` to be 'foreground' or 'voxels', but got {divisor!r}")
        if dice_weight < 0 or ce_weight < 0 or dice_weight + ce_weight == 0:
            raise InputError("Expected `dice_weight` and `ce_weight` to be at least 0 and not both 0")
        if not 0 < min_foreground <= 1:
            raise InputError(f"Expected argument `min_foreground` to be in (0, 1], but got {min_foreground}")
        if deep_supervision_decay < 0:
            raise InputError(
                f"Expected argument `deep_supervision_decay` to be at least 0, but got {deep_supervision_decay}"
            )
        self.divisor = divisor
        self.dice_weight = dice_weight
        self.ce_weight = ce_weight
        self.min_foreground = min_foreground
        self.ignore_index = ignore_index
        self.deep_supervision_decay = deep_supervision_decay
        self.use_map = use_map

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        weight: Tensor | None = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss.

        Args:
            logits: (B, Y, *spatial), or a sequence of such with the finest first (deep supervision); target and map
                are resampled to the coarser outputs.
            target: (B, *spatial) or (B, 1, *spatial) integer classes or ``ignore_index``.
            weight: Risk weights of the target's shape, or None for 1 everywhere (plain fine-tuning).
            foreground_fraction: (B,) the volumes' foreground fractions, for patches without foreground.
            eep: Unused.

        Returns:
            Scalar float32, finite for finite logits.

        Raises:
            ValueError: If shapes disagree, or there is no output.
        """
        if not self.use_map:
            weight = None
        if isinstance(logits, Tensor):
            return self._single(logits, target, weight, foreground_fraction)
        if len(logits) == 0:
            raise ValueError("Expected `logits` to hold at least one output, but got an empty sequence")
        # checked here, because `_resized` accepts any size; the finest output has the target's
        target = without_channel(target, logits[0], "target")
        weight = None if weight is None else without_channel(weight, logits[0], "weight")
        factors = [self.deep_supervision_decay**level for level in range(len(logits))]
        losses = [
            factor * self._single(level, *_resized(level, target, weight), foreground_fraction)
            for factor, level in zip(factors, logits, strict=True)
        ]
        return torch.stack(losses).sum() / sum(factors)

    def _single(
        self, logits: Tensor, target: Tensor, weight: Tensor | None, foreground_fraction: Tensor | None
    ) -> Tensor:
        target = without_channel(target, logits, "target").long()
        if weight is not None:
            weight = without_channel(weight, logits, "weight")
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.ce_weight:
            voxels = self.voxel_losses(logits, target, weight)
            loss = loss + self.ce_weight * self.sample_losses(voxels, target, foreground_fraction).mean()
        if self.dice_weight:
            loss = loss + self.dice_weight * soft_dice_loss(logits, target, self.ignore_index)
        return loss

    def voxel_losses(self, logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Returns w_i CE_i, (B, *spatial) float32, 0 at ignored voxels."""
        return weighted_cross_entropy(logits, target, weight, self.ignore_index)

    def sample_losses(self, voxels: Tensor, target: Tensor, foreground_fraction: Tensor | None) -> Tensor:
        """Returns each sample's loss, (B,), from its voxels' losses (B, *spatial)."""
        return voxels.flatten(1).sum(1) / self._divisor(target, foreground_fraction)

    def _divisor(self, target: Tensor, foreground_fraction: Tensor | None) -> Tensor:
        """Returns N_b, (B,) float32, at least 1."""
        flat = target.flatten(1)
        counted = (flat != self.ignore_index).sum(1).float()
        if self.divisor == "voxels":
            return counted.clamp_min(1)
        foreground = ((flat != self.ignore_index) & (flat > 0)).sum(1).float()
        fallback = torch.zeros_like(counted) if foreground_fraction is None else foreground_fraction.to(counted)
        foreground = torch.where(foreground > 0, foreground, fallback * counted)
        return torch.maximum(foreground, self.min_foreground * counted).clamp_min(1)


def without_channel(volume: Tensor, logits: Tensor, name: str) -> Tensor:
    """Returns a volume (B, *spatial) or (B, 1, *spatial) without the channel axis.

    Raises:
        ValueError: If its shape does not match the logits (B, Y, *spatial).
    """
    expected = (logits.shape[0], *logits.shape[2:])
    squeezed = volume.squeeze(1) if volume.ndim == logits.ndim and volume.shape[1] == 1 else volume
    if squeezed.shape != expected:
        raise ValueError(
            f"Expected `{name}` of shape {expected} for logits {tuple(logits.shape)}, but got {tuple(volume.shape)}"
        )
    return squeezed


def _resized(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Returns target and weight, both without a channel axis, at the size of the logits, with one."""
    size = logits.shape[2:]
    target = target.unsqueeze(1)
    weight = None if weight is None else weight.unsqueeze(1)
    if target.shape[2:] == size:
        return target, weight
    if weight is not None:
        weight = nnf.interpolate(weight.float(), size=size, mode="area")
    return nnf.interpolate(target.float(), size=size, mode="nearest-exact"), weight
