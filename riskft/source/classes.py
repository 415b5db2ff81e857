"""Changes the number of output classes of a network with any kind of head."""

import copy
import difflib
from collections.abc import Sequence

from torch import nn

from riskft.errors import InputError, refuse
from riskft.source.resize import has_channels, in_channels, out_channels, resize_tail
from riskft.source.trace import Trace, run, trace


def with_classes(
    network: nn.Module, classes: int, size: Sequence[int], head: Sequence[str] | None = None
) -> tuple[nn.Module, list[str]]:
    """Returns a copy with ``classes`` output channels, and the names of the modules that make up its head.

    The head is the shortest tail of layers that each have one output channel per class and whose replacement gives a
    network that runs with ``classes`` outputs. In a plain U-Net this is the last convolution. If a residual block works
    on the class channels (MONAI's UNet with residual units), the convolution before it and the normalisation between
    them are part of the head. New weights are random. ``size`` is a window that the network can run on, voxels along x,
    y, z; ``head`` names the modules, None finds them. Raises InputError if no such tail exists, the head is grouped, or
    the named modules do not form a head.
    """
    found = trace(network, size)
    old = found.channels[0]
    if head is not None:
        return _with_named_head(network, classes, size, head, found)
    tail = [name for name in found.executed if out_channels(network.get_submodule(name)) == old]
    for name in found.last or tail[-1:]:
        if getattr(network.get_submodule(name), "groups", 1) != 1:
            raise InputError(
                f"The head '{name}' of {type(network).__name__} is a grouped convolution, in which each class sees "
                "other features, so it cannot start from the source's. Build it with groups: 1."
            )
    # if the number is right already, changing it still shows which layers belong to the head
    wanted = classes + 1 if old == classes else classes
    tails = [tail[-depth:] for depth in range(1, len(tail) + 1)]
    if found.last:  # layers that run between the heads of several resolutions may have as many channels by chance
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
        f"'{name}' does not exist; the nearest are: "
        + ", ".join(difflib.get_close_matches(name, list(modules), cutoff=0.3))
        for name in head
        if name not in modules
    ]
    # by identity because a module may be registered under several names
    inside = {id(part) for name in head if name in modules for part in modules[name].modules()}
    # in order of execution because the first takes the backbone's channels
    layers = [name for name in found.executed if id(modules[name]) in inside]
    problems += [
        f"'{name}' has {out_channels(modules[name])} output channels, the network {old}"
        for name in layers
        if out_channels(modules[name]) != old
    ]
    if not problems and not layers:
        problems = ["there is no convolution among them that runs"]
    refuse(f"model.source.head is {list(head)}, expected the last modules of {type(network).__name__}:", problems)
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
    """Returns a copy with ``wanted`` class channels and the names of what was resized, or None if it does not run."""
    entry, *rest = layers
    old = found.channels[0]
    takers = [name for name in rest if in_channels(network.get_submodule(name)) == old]
    if others is None:
        after = found.sized[found.sized.index(entry) :]
        others = [name for name in after if has_channels(network.get_submodule(name), old)]
        choices: list[Sequence[str]] = [others, []] if others else [[]]
    else:
        choices = [others]
    # a module with one channel per class may work on the classes or, by chance, on as many backbone channels
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
