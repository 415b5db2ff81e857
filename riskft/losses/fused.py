"""Cross-entropy and the sums of soft Dice from one softmax, with their own gradient, block by block.

It keeps one tensor of the logits' size, the probabilities, which become the gradient; autograd would keep several.
Blocks stay in the processor's cache from one operation to the next. Nothing waits for the device.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from riskft.compat import assert_on_device

_ON_CPU = 1 << 18  # elements of a block per thread: buffers of 1 MB
_ELSEWHERE = 1 << 22  # on an accelerator: each kernel then takes longer than its launch
_EXACT = 1 << 24  # up to here, single precision counts exactly


class Terms(NamedTuple):
    """The terms of a loss of voxels and regions; float64 for float64 logits, else float32.

    Attributes:
        entropy: (B, *spatial) cross-entropies in nats, at least 0, 0 at ignored voxels.
        counts: (B, Y) voxels of each class; no gradient.
        mass: (B, Y) sums of the class's probability over all voxels that are not ignored.
        overlap: (B, Y) sums of the class's probability over the class's voxels.
    """

    entropy: Tensor
    counts: Tensor
    mass: Tensor
    overlap: Tensor

    def dice_loss(self, smooth: float = 1e-5) -> Tensor:
        """Returns 1 - soft Dice averaged over samples and classes, background included, as MONAI's DiceLoss.

        Args:
            smooth: Added to numerator and denominator.
        """
        return 1 - ((2 * self.overlap + smooth) / (self.mass + self.counts + smooth)).mean()


def loss_terms(logits: Tensor, target: Tensor, ignore_index: int) -> Terms:
    """Returns the terms of a batch. They can be differentiated once.

    Args:
        logits: (B, Y, *spatial), any floating dtype and memory order.
        target: (B, *spatial) classes or ``ignore_index``, any dtype.
        ignore_index: Label of ignored voxels.

    Raises:
        RuntimeError: If a label is neither a class nor ignored; an accelerator raises it later, when it gets there.
    """
    entropy, *sums = _Terms.apply(logits.flatten(2), target.flatten(1), ignore_index)  # type: ignore[no-untyped-call]
    return Terms(entropy.view(target.shape), *sums)


def blocks(length: int, channels: int, device: torch.device) -> Iterator[slice]:
    """Yields slices of ``length`` voxels with ``channels`` values each, of the length that suits the device best."""
    budget = _ON_CPU * torch.get_num_threads() if device.type == "cpu" else _ELSEWHERE
    step = max(1, min(budget, _EXACT) // channels)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


class _Terms(torch.autograd.Function):
    """``loss_terms`` of logits (B, Y, N) and a target (B, N)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        entropy = logits.new_empty(target.shape, dtype=dtype)
        probs = torch.empty_like(logits, dtype=dtype)
        counts, mass, overlap = (logits.new_zeros(logits.shape[:2], dtype=dtype) for _ in range(3))
        unknown = logits.new_zeros((), dtype=dtype)
        for block, x, p, one_hot in _blocks(logits, dtype, 3):
            torch.softmax(x.copy_(logits[..., block]), 1, out=p)
            label = target[:, None, block].to(dtype, copy=True)
            _one_hot(label, ignore_index, one_hot)
            counted = label.ne_(ignore_index)
            # relative to the most probable class, whose p is at least 1/Y: large logits cancel in the difference
            own = x.amax(1).sub_(x.mul_(one_hot).sum(1)).sub_(p.amax(1).log_())
            torch.mul(own, counted[:, 0], out=entropy[:, block])
            mass += torch.mul(p, counted, out=probs[..., block]).sum(2)
            in_block = one_hot.sum(2)
            counts += in_block
            unknown += counted.sum() - in_block.sum()
            overlap += one_hot.mul_(p).sum(2)
        assert_on_device(unknown == 0, "a label is neither a class of the network nor the ignored one")
        ctx.save_for_backward(logits, target)
        ctx.probs, ctx.ignore_index = probs, ignore_index
        ctx.mark_non_differentiable(counts)
        ctx.set_materialize_grads(False)
        return entropy, counts, mass, overlap

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None, None]:
        """Returns p (v - sum_k p_k v_k) + (p - truth) dL/dCE with v = dL/dp, over the probabilities in memory."""
        by_entropy, _, by_mass, by_overlap = grads
        logits, target = ctx.saved_tensors
        probs, ctx.probs = ctx.probs, None
        if probs is None:  # a second call of backward: the first one's result has overwritten them
            probs = logits.softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
            probs = probs * (target != ctx.ignore_index).unsqueeze(1)
        grad = probs if probs.dtype == logits.dtype else torch.empty_like(logits)
        soft = by_mass is not None or by_overlap is not None
        zero = probs.new_zeros(())
        by_entropy = zero.expand(target.shape) if by_entropy is None else by_entropy
        by_mass, by_overlap = (
            (zero.expand(logits.shape[:2]) if by is None else by).unsqueeze(2) for by in (by_mass, by_overlap)
        )
        for block, v, one_hot in _blocks(logits, probs.dtype, 2):
            p, g = probs[..., block], by_entropy[:, None, block]
            _one_hot(target[:, None, block].to(p.dtype), ctx.ignore_index, one_hot)
            if soft:
                torch.mul(one_hot, by_overlap, out=v).add_(by_mass).mul_(p)
                v.addcmul_(p, g - v.sum(1, keepdim=True))
                torch.addcmul(v, one_hot, g, value=-1, out=grad[..., block])
            else:
                torch.mul(torch.sub(p, one_hot, out=v), g, out=grad[..., block])
        return grad, None, None


def _blocks(logits: Tensor, dtype: torch.dtype, buffers: int) -> Iterator[Any]:
    """Yields slices of the voxels of logits (B, Y, N), each with ``buffers`` tensors of its shape to write to."""
    memory = None
    for block in blocks(logits.shape[2], logits[..., :1].numel(), logits.device):
        shape = logits[..., block].shape
        memory = logits.new_empty((buffers, shape.numel()), dtype=dtype) if memory is None else memory
        yield block, *(one[: shape.numel()].view(shape) for one in memory)


def _one_hot(label: Tensor, ignore_index: int, out: Tensor) -> None:
    """Writes to ``out`` (B, Y, n): 1 where a label (B, 1, n) is the class and not ignored, 0 elsewhere."""
    classes = torch.arange(out.shape[1], dtype=out.dtype, device=out.device)
    out.copy_(label.expand_as(out)).eq_(classes.view(1, -1, 1))
    if 0 <= ignore_index < out.shape[1]:
        out[:, ignore_index] = 0
