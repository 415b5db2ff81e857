"""Losses that find hard voxels by the network's own error only: controls that do not use the source."""

import math
from typing import Any

import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.losses.weighted import RiskWeightedLoss


class FocalLoss(RiskWeightedLoss):
    """``RiskWeightedLoss`` with the focal loss instead of cross-entropy, (1 - p_i)^gamma CE_i.

    Args:
        gamma: 0 is cross-entropy.
        **options: See ``RiskWeightedLoss``; an attached map weights the voxels here, too.
    """

    def __init__(self, gamma: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        # between 0 and 1 the gradient is infinite for certain voxels
        if gamma < 0 or 0 < gamma < 1:
            raise InputError(f"Expected argument `gamma` to be 0 or at least 1, but got {gamma}")
        self.gamma = gamma

    def voxel_losses(self, entropy: Tensor, weight: Tensor | None) -> Tensor:
        """Returns w_i (1 - p_i)^gamma CE_i, (B, *spatial), 0 at ignored voxels."""
        return super().voxel_losses((-torch.expm1(-entropy)) ** self.gamma * entropy, weight)


class TopKLoss(RiskWeightedLoss):
    """``RiskWeightedLoss`` whose cross-entropy is the mean over each sample's worst voxels, as nnU-Net's top-k loss.

    Args:
        share: Fraction of the sample's voxels, without ignored ones, to average over (at least one voxel); 1 for all.
        **options: See ``RiskWeightedLoss``. There is no foreground normalisation: the divisor is the number of worst
            voxels. An attached map weights voxels before the worst are selected.
    """

    def __init__(self, share: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < share <= 1:
            raise InputError(f"Expected argument `share` to be in (0, 1], but got {share}")
        if self.divisor == "foreground":
            raise InputError("riskft.TopKLoss averages over the worst voxels: set divisor to 'voxels'.")
        self.share = share

    def sample_losses(self, voxels: Tensor, counts: Tensor, foreground_fraction: Tensor | None) -> Tensor:
        """Returns the mean of each sample's worst voxels, (B,), 0 for a sample with only ignored voxels."""
        # one number per sample, without leaving the device
        wanted = torch.ceil(self.share * counts.sum(1).double()).long()
        most = math.ceil(self.share * voxels[0].numel())
        worst = voxels.flatten(1).topk(most, dim=1).values
        among = torch.arange(most, device=worst.device) < wanted.unsqueeze(1)
        return (worst * among).sum(1) / wanted.clamp_min(1)
