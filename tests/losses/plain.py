"""The terms of the weighted loss written down with torch's own operations, which autograd differentiates."""

import torch
import torch.nn.functional as nnf
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor, ignore: int) -> Tensor:
    """Returns CE_i, (B, *spatial), 0 at ignored voxels, of logits (B, Y, *spatial) and a target (B, *spatial)."""
    return nnf.cross_entropy(wide(logits), target.long(), ignore_index=ignore, reduction="none")


def soft_dice_loss(logits: Tensor, target: Tensor, ignore: int, smooth: float = 1e-5) -> Tensor:
    """Returns 1 - soft Dice averaged over samples and classes, without ignored voxels."""
    counted = target != ignore
    truth = nnf.one_hot(target.long().masked_fill(~counted, 0), logits.shape[1]).movedim(-1, 1)
    truth = (truth * counted.unsqueeze(1)).to(wide(logits).dtype).flatten(2)
    probs = (wide(logits).softmax(1) * counted.unsqueeze(1)).flatten(2)
    overlap = 2 * (probs * truth).sum(2) + smooth
    return 1 - (overlap / (probs.sum(2) + truth.sum(2) + smooth)).mean()


def loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore: int = 255,
    foreground: bool = False,
    dice: float = 1.0,
    ce: float = 1.0,
) -> Tensor:
    """Returns ``RiskWeightedLoss`` of one output; ``foreground`` divides by the sample's foreground voxels."""
    entropy = cross_entropy(logits, target, ignore) * (1 if weight is None else weight)
    counted = (target != ignore).flatten(1).sum(1)
    divisor = counted
    if foreground:
        inside = ((target > 0) & (target != ignore)).flatten(1).sum(1)
        divisor = torch.maximum(inside, 1e-3 * counted)
    weighted = (entropy.flatten(1).sum(1) / divisor.clamp_min(1)).mean()
    return ce * weighted + dice * soft_dice_loss(logits, target, ignore)


def wide(logits: Tensor) -> Tensor:
    """Returns logits in at least single precision."""
    return logits if logits.dtype == torch.float64 else logits.float()
