"""Giving any segmentation network another number of input channels or output classes."""

import copy
import difflib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from riskft.errors import InputError, first_line
from riskft.source.diagnose import does_not_run
from riskft.source.resize import (
    CONVOLUTIONS,
    TRANSPOSED,
    has_channels,
    in_channels,
    out_channels,
    resize_norm,
    resize_outputs,
    resize_tail,
)
from riskft.source.trace import FailedRunError, Trace, run

FirstConvolution = Literal["mean", "repeat"]
"""How the kernel of a first convolution is made for another number of channels, see ``with_input_channels``."""


def trace(network: nn.Module, size: Sequence[int], training: bool = True) -> Trace:
    """Returns what a forward pass on a window shows of a network, which stays as it is; see ``riskft.source.trace``.

    Raises:
        InputError: If it does not run on the window, with what is known of the reason.
    """
    try:
        return run(network, size, training)
    except FailedRunError as failure:
        raise does_not_run(network, size, failure) from failure


def with_input_channels(
    network: nn.Module, channels: int, size: Sequence[int], how: FirstConvolution = "mean"
) -> tuple[nn.Module, list[str]]:
    """Returns a copy whose first convolutions take ``channels`` channels, and their names (none if they do already).

    Args:
        network: Left as it is.
        channels: Number of input channels wanted.
        size: Voxels along x, y, z that the network can be run on.
        how: What a new channel's weights are: ``mean`` of the old channels', or ``repeat``: new channel c takes old
            channel c mod C_old. Both are scaled by C_old / C_new, so that C_new equal channels give the response that
            C_old equal ones gave (``repeat``: exactly only where C_old divides C_new).

    Raises:
        InputError: If no convolution takes the input itself, or one that does is grouped, or the network does not run
            with that many channels.
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
    """Returns a copy in which all else that depends on the number of input channels follows it, as far as is known.

    These are the modules around the first convolutions, which may note it, and the last layer of a branch that gives
    the image back, on which the segmentation does not depend (an auto-encoder beside it).
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


def with_classes(
    network: nn.Module, classes: int, size: Sequence[int], head: Sequence[str] | None = None
) -> tuple[nn.Module, list[str]]:
    """Returns a copy with ``classes`` output channels, and the names of the modules that make up its head.

    The head is the shortest tail of layers with as many output channels as there are classes whose
    replacement gives a network that runs and has the wanted outputs. A plain U-Net's is its last convolution; where
    a residual block works on the class channels (MONAI's UNet with residual units), the convolution before it and
    the normalisation between them belong to the head as well. New weights are random.

    Args:
        network: Left as it is.
        classes: Number of classes wanted, background included.
        size: Voxels along x, y, z that the network can be run on.
        head: Names of the modules that make up the head, where they shall not be found in this way.

    Raises:
        InputError: If no such tail exists, the head is grouped, or the named modules are none.
    """
    found = trace(network, size)
    old = found.channels[0]
    if head is not None:
        return _with_named_head(network, classes, size, head, found)
    tail = [name for name in found.executed if out_channels(network.get_submodule(name)) == old]
    for name in found.last or tail[-1:]:
        if getattr(network.get_submodule(name), "groups", 1) != 1:
            raise InputError(
                f"The head '{name}' of {type(network).__name__} is a grouped convolution, of which each class sees "
                "other features, and cannot be started from the source's. Build it with groups: 1."
            )
    # with the right number already, another one shows what belongs to the head
    wanted = classes + 1 if old == classes else classes
    tails = [tail[-depth:] for depth in range(1, len(tail) + 1)]
    if found.last:  # between heads of several resolutions run others that may have as many channels by chance
        tails.insert(0, [name for name in found.executed if name in found.last])
    for layers in tails:
        if (resized := _with_head(network, layers, None, found, wanted, size)) is not None:
            candidate, names = resized
            return (copy.deepcopy(network) if old == classes else candidate), names
    if tail and old == classes:
        return copy.deepcopy(network), [tail[-1]]
    raise InputError(
        f"{type(network).__name__} has {old} output channels, but no convolution at its end can be replaced to give "
        f"{classes}. Build it with {classes} output channels, or name its head's modules in model.source.head."
    )


def _with_named_head(
    network: nn.Module, classes: int, size: Sequence[int], head: Sequence[str], found: Trace
) -> tuple[nn.Module, list[str]]:
    modules, old = dict(network.named_modules(remove_duplicate=False)), found.channels[0]
    problems = [
        f"'{name}' is none; the nearest are: {', '.join(difflib.get_close_matches(name, list(modules), cutoff=0.3))}"
        for name in head
        if name not in modules
    ]
    # by identity, for a module may be registered under several names
    inside = {id(part) for name in head if name in modules for part in modules[name].modules()}
    # in the order of execution, for the first takes the backbone's channels
    layers = [name for name in found.executed if id(modules[name]) in inside]
    problems += [
        f"'{name}' has {out_channels(modules[name])} output channels, the network {old}"
        for name in layers
        if out_channels(modules[name]) != old
    ]
    if not problems and not layers:
        problems = ["there is no convolution among them that runs"]
    if problems:
        raise InputError(
            f"model.source.head is {list(head)}, expected the last modules of {type(network).__name__}:", problems
        )
    others = [name for name, module in network.named_modules() if id(module) in inside and has_channels(module, old)]
    wanted = classes + 1 if old == classes else classes
    resized = _with_head(network, layers, others, found, wanted, size)
    if resized is None:
        raise InputError(
            f"model.source.head is {list(head)}, but {type(network).__name__} does not give {wanted} channels with "
            "these modules replaced. Name all that work on the class channels."
        )
    return (copy.deepcopy(network) if old == classes else resized[0]), resized[1]


def _with_head(
    network: nn.Module,
    layers: Sequence[str],
    others: Sequence[str] | None,
    found: Trace,
    wanted: int,
    size: Sequence[int],
) -> tuple[nn.Module, list[str]] | None:
    """Returns a copy with another number of class channels and what was resized, or None if that does not run."""
    entry, *rest = layers
    old = found.channels[0]
    takers = [name for name in rest if in_channels(network.get_submodule(name)) == old]
    if others is None:
        after = found.sized[found.sized.index(entry) :]
        others = [name for name in after if has_channels(network.get_submodule(name), old)]
        choices: list[Sequence[str]] = [others, []] if others else [[]]
    else:
        choices = [others]
    # what has as many channels as there are classes works on these or, by chance, on as many of the backbone
    for inner in [takers, []] if takers else [[]]:
        for along in choices:
            candidate = copy.deepcopy(network)
            try:
                names = resize_tail(candidate, entry, rest, inner, along, wanted)
                if run(candidate, size).channels == [wanted] * len(found.channels):
                    return candidate, names
            except InputError:
                continue  # a skip connection joins old and new class channels: the head starts earlier
    return None
