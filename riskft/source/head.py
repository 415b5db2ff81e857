"""Initialises the target's head from the source's head and the source's output on each target class."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from riskft.errors import InputError
from riskft.source.resize import CONVOLUTIONS, TRANSPOSED


def head_rows(joint: Tensor, activity: Tensor) -> Tensor:
    """Returns the weight of each source channel's row in each target class's row, (Y, K) float64.

    Row y holds sum_z P(z|y) a(z, k), the mean activity of channel k over the voxels of class y. For a softmax head
    (the activity is the identity) the weights are P(z|y). For a sigmoid head with weights of 0 or 1, the logits
    sum_k a_k l_k make the target's softmax the product of the sigmoids' Bernoulli probabilities over the sets of
    labels that the target classes stand for.

    Args:
        joint: P(y, z), (Y, Z), at any scale. A target class without mass gets the mean over P(z).
        activity: (Z, K), see ``SourceOutput.activity``.
    """
    joint = joint.double()
    prior = joint.sum(0, keepdim=True) / joint.sum()
    mass = joint.sum(1, keepdim=True)
    given_class = torch.where(mass > 0, joint / mass.clamp_min(torch.finfo(joint.dtype).tiny), prior)
    return given_class @ activity.to(given_class)


@torch.no_grad()
def mixed_head(
    target: nn.Module, source: nn.Module, names: Sequence[str], rows: Tensor, parallel: Collection[str] = ()
) -> None:
    """Sets the target's head to weighted sums of the source head's rows, in place.

    A row is the weights and bias of one channel; row y becomes sum_k rows[y, k] row_k, with ``rows`` (Y, K) from
    ``head_rows``. If a convolution of the head takes class channels as input, the pseudo-inverse maps these back, so
    that a linear head gives exactly the weighted sums of the source's logits. Those of the head's modules, ``names``,
    that are ``parallel`` heads (deep supervision) take the backbone's channels.
    """
    back = torch.linalg.pinv(rows)
    for name in names:
        new, old = target.get_submodule(name), source.get_submodule(name)
        before = dict(old.named_parameters(recurse=False)) | dict(old.named_buffers(recurse=False))
        # a normalisation's running statistics are mixed like its weights
        for key, value in [*new.named_parameters(recurse=False), *new.named_buffers(recurse=False)]:
            mixed = before[key].double()
            if isinstance(new, CONVOLUTIONS) and key == "weight":
                chained = name != names[0] and name not in parallel
                inner = chained and (old.in_channels, new.in_channels) == rows.shape[::-1]
                mixed = _mix_kernel(mixed, rows, back if inner else None, isinstance(new, TRANSPOSED))
            elif mixed.ndim and mixed.shape[0] == rows.shape[1]:
                mixed = rows.to(mixed.device) @ mixed
            value.copy_(mixed.reshape(value.shape))


def _mix_kernel(kernel: Tensor, rows: Tensor, back: Tensor | None, transposed: bool) -> Tensor:
    """Returns a kernel whose output channels are mixed by ``rows`` and, if given, its input channels by ``back``."""
    kernel = kernel.transpose(0, 1) if transposed else kernel
    mixed = torch.einsum("yz,zi...->yi...", rows.to(kernel.device), kernel)
    if back is not None:
        mixed = torch.einsum("yi...,ij->yj...", mixed, back.to(kernel.device))
    return mixed.transpose(0, 1) if transposed else mixed


@torch.no_grad()
def copy_head(target: nn.Module, source: nn.Module, names: Sequence[str]) -> None:
    """Copies the source's head, in place; raises InputError if the numbers of classes differ."""
    for name in names:
        new, old = target.get_submodule(name).state_dict(), source.get_submodule(name).state_dict()
        if any(new[key].shape != old[key].shape for key in new):
            raise InputError(
                "model.head_init is 'copy', but source and target have different numbers of classes: use 'leep' or "
                "'random'."
            )
        target.get_submodule(name).load_state_dict(old)
