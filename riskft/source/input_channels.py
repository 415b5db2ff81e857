"""Adapts a network's first convolutions to another number of input channels or to inverted images."""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from riskft.errors import InputError, first_line
from riskft.source.resize import (
    CONVOLUTIONS,
    TRANSPOSED,
    has_channels,
    in_channels,
    out_channels,
    resize_norm,
    resize_outputs,
)
from riskft.source.trace import FailedRunError, Trace, run, trace

#: How a first convolution's kernel is adapted to another number of channels, see ``with_input_channels``.
FirstConvolution = Literal["mean", "repeat"]


def with_input_channels(
    network: nn.Module, channels: int, size: Sequence[int], how: FirstConvolution = "mean"
) -> tuple[nn.Module, list[str]]:
    """Returns a copy whose first convolutions take ``channels`` channels, and their names (none if unchanged).

    A new channel's weights are the ``mean`` of the old channels, or ``repeat``: new channel c takes old channel c mod
    C_old. Both are scaled by C_old / C_new, so that C_new equal channels give the same response as C_old equal ones did
    (with ``repeat`` exactly only if C_old divides C_new). ``size`` is a window that the network can run on, voxels
    along x, y, z. Raises InputError if no convolution takes the input directly, one that does is grouped, or the
    network does not run with ``channels`` channels.
    """
    found = trace(network, size)
    if found.in_channels == channels:
        return network, []
    kind = type(network).__name__
    if not found.first:
        raise InputError(
            f"No convolution of {kind} takes the input itself, so it cannot be given {channels} channels. Build it "
            f"with {channels} input channels."
        )
    network = copy.deepcopy(network)
    for name in found.sized[: found.sized.index(found.first[0])]:  # a normalisation of the input
        if has_channels(network.get_submodule(name), found.in_channels):
            resize_norm(network, name, channels, how == "mean")
    for name in found.first:
        convolution = network.get_submodule(name)
        if not isinstance(convolution, CONVOLUTIONS) or convolution.in_channels != found.in_channels:
            raise InputError(
                f"The first layer '{name}' of {kind} takes the input in another arrangement "
                f"({type(convolution).__name__} of {in_channels(convolution)} values), and cannot be given {channels} "
                f"channels. Build {kind} with {channels} input channels."
            )
        if convolution.groups != 1:
            raise InputError(
                f"The first convolution '{name}' is grouped and cannot take {channels} channels. Build {kind} with "
                f"{channels} input channels."
            )
        old = convolution.weight.detach()
        axis = 0 if isinstance(convolution, TRANSPOSED) else 1
        source = old.mean(axis, keepdim=True) if how == "mean" else old
        taken = torch.arange(channels, device=old.device) % source.shape[axis]
        convolution.weight = nn.Parameter(source.index_select(axis, taken) * (old.shape[axis] / channels))
        convolution.in_channels = channels
    for attempt in (_told(network, found, channels), network):
        try:
            if run(attempt, size).in_channels == channels:
                return attempt, found.first
        except FailedRunError as failure:
            reason = first_line(failure.cause)
    others = f"; its layer '{found.mixed[0]}' takes the input too" if found.mixed else ""
    raise InputError(
        f"{kind} cannot be given {channels} input channels by changing its first convolutions ({reason}{others}). "
        f"Build it with {channels} input channels."
    )


def _told(network: nn.Module, found: Trace, channels: int) -> nn.Module:
    """Returns a copy in which other known places that depend on the number of input channels are updated too.

    These are an ``in_channels`` attribute of the modules around the first convolutions, and the last layer of a branch
    that reconstructs the image (an auto-encoder) and does not affect the segmentation.
    """
    network = copy.deepcopy(network)
    for name in found.first:
        parts = name.split(".")
        for length in range(len(parts)):
            around: Any = network.get_submodule(".".join(parts[:length]))
            if getattr(around, "in_channels", None) == found.in_channels:
                around.in_channels = channels
    for name in reversed(found.executed):
        if f"{name}.weight" in found.unused and out_channels(network.get_submodule(name)) == found.in_channels:
            resize_outputs(network, name, channels)
            break
    return network


def inverted_network(network: nn.Module, size: Sequence[int]) -> tuple[nn.Module, list[str]]:
    """Returns a copy that gives for x what the network gives for -x, and the names of the negated convolutions.

    Some MRI contrasts invert each other's brightness (T1w and T2w). Negating the first convolutions' weights has the
    same effect as negating the image, so data and checkpoints stay as they are. Meant for images with background 0 and
    grey values around it, as from ``ZScoreIntensity``. ``size`` is a window that the network can run on, voxels along
    x, y, z. Raises InputError if no convolution takes the input directly, or a layer takes something calculated from
    it.
    """
    found = trace(network, size)
    names = found.first
    if not names:
        raise InputError(f"No convolution of {type(network).__name__} takes the input itself: it cannot be inverted.")
    if other := [*found.altered, *found.mixed]:
        raise InputError(
            f"'{other[0]}' of {type(network).__name__} takes more than the input itself: it cannot be inverted."
        )
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name in names:
            network.get_submodule(name).weight.neg_()  # type: ignore[operator]
    return network, names
