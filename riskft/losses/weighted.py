"""The map-weighted segmentation loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError
from riskft.losses.fused import Terms, loss_terms

Weight: TypeAlias = Tensor | Callable[[Tensor, Tensor], Tensor | None] | None
"""Risk weights of the target's shape, or None for 1 everywhere, or a function that returns either.

The function takes the finest output's cross-entropies and its target, both (B, *spatial) and without gradient. It is
called once per batch.
"""


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
        weight: Weight = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss of a batch of patches, scalar float32 (float64 for such logits), finite for finite logits.

        Args:
            logits: (B, Y, *spatial), or a sequence of such with the finest first (deep supervision).
            target: (B, *spatial) or (B, 1, *spatial) integer classes or the ignored label.
            weight: See ``Weight``; None for plain fine-tuning.
            foreground_fraction: (B,) the volumes' foreground fractions, for patches without foreground.
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
        weight: Weight = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss; see ``Loss``. Target and map are resampled to the coarser outputs.

        Raises:
            ValueError: If shapes disagree, or there is no output.
        """
        levels = [logits] if isinstance(logits, Tensor) else logits
        if len(levels) == 0:
            raise ValueError("Expected `logits` to hold at least one output, but got an empty sequence")
        # checked here, because `_resized` accepts any size; the finest output has the target's
        target = without_channel(target, levels[0], "target")
        finest = loss_terms(levels[0], target, self.ignore_index)
        if callable(weight):
            weight = weight(finest.entropy.detach(), target)
        weight = None if weight is None or not self.use_map else without_channel(weight, levels[0], "weight")
        losses = [self._single(finest, weight, foreground_fraction)]
        for level in levels[1:]:
            small, mean = _resized(level, target, weight)
            losses.append(self._single(loss_terms(level, small, self.ignore_index), mean, foreground_fraction))
        factors = [self.deep_supervision_decay**level for level in range(len(losses))]
        return torch.stack([factor * loss for factor, loss in zip(factors, losses, strict=True)]).sum() / sum(factors)

    def _single(self, terms: Terms, weight: Tensor | None, foreground_fraction: Tensor | None) -> Tensor:
        loss = terms.entropy.new_zeros(())
        if self.ce_weight:
            voxels = self.voxel_losses(terms.entropy, weight)
            loss = loss + self.ce_weight * self.sample_losses(voxels, terms.counts, foreground_fraction).mean()
        if self.dice_weight:
            loss = loss + self.dice_weight * terms.dice_loss()
        return loss

    def voxel_losses(self, entropy: Tensor, weight: Tensor | None) -> Tensor:
        """Returns w_i CE_i, (B, *spatial), from the cross-entropies, which are 0 at ignored voxels."""
        return entropy if weight is None else entropy * weight.to(entropy.dtype)

    def sample_losses(self, voxels: Tensor, counts: Tensor, foreground_fraction: Tensor | None) -> Tensor:
        """Returns each sample's loss, (B,), from its voxels' losses (B, *spatial) and voxels of each class (B, Y)."""
        return voxels.flatten(1).sum(1) / self._divisor(counts, foreground_fraction)

    def _divisor(self, counts: Tensor, foreground_fraction: Tensor | None) -> Tensor:
        """Returns N_b, (B,), at least 1."""
        counted = counts.sum(1)
        if self.divisor == "voxels":
            return counted.clamp_min(1)
        foreground = counts[:, 1:].sum(1)
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
    """Returns target and weight, both without a channel axis, at the size of the logits."""
    size = logits.shape[2:]
    if target.shape[1:] == size:
        return target, weight
    if weight is not None:
        weight = nnf.interpolate(weight.float().unsqueeze(1), size=size, mode="area").squeeze(1)
    return nnf.interpolate(target.float().unsqueeze(1), size=size, mode="nearest-exact").squeeze(1), weight
