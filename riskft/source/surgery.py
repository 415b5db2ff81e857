"""Giving any segmentation network another number of input channels or output classes."""

import copy
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from riskft.errors import InputError, first_line
from riskft.source.resize import has_channels, resize_tail

FirstConvolution = Literal["mean", "repeat"]
"""How the kernel of a first convolution is made for another number of channels, see ``with_input_channels``."""


@dataclass
class Trace:
    """What one forward pass shows of a network.

    Attributes:
        first: Names of the convolutions that take the network's input.
        executed: Names of convolutions in the order of execution, each once.
        channels: Channels of each output (several with deep supervision).
        last: Names of the convolutions whose results are the outputs themselves, one for each output or none.
    """

    first: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    last: list[str] = field(default_factory=list)


def input_channels(network: nn.Module) -> int:
    """Returns the number of channels that the network's first convolution takes.

    Raises:
        InputError: If the network has no convolution.
    """
    for module in network.modules():
        if isinstance(module, _ConvNd):
            return int(module.in_channels)
    raise InputError(f"{type(network).__name__} has no convolution, expected a convolutional segmentation network.")


def outputs_of(result: object) -> list[Tensor]:
    """Returns a network's outputs, finest first: one tensor, or several with deep supervision."""
    if isinstance(result, Tensor):
        # MONAI's DynUNet stacks its deep-supervision outputs along a new second axis
        return list(result.unbind(1)) if result.ndim == 6 else [result]
    if isinstance(result, Sequence) and result and all(isinstance(item, Tensor) for item in result):
        return list(result)
    raise InputError(f"The network returns {type(result).__name__}, expected a tensor or a list of tensors.")


@torch.no_grad()
def trace(network: nn.Module, size: Sequence[int]) -> Trace:
    """Runs a copy of the network on zeros of (2, C, *size) and records what runs when.

    The copy is in training mode, in which networks with deep supervision show all of their outputs; two samples
    satisfy batch normalisation.

    Raises:
        InputError: If the network does not run on such an input.
    """
    try:
        # without numbers, which costs neither time nor memory, whatever the window
        return _run(copy.deepcopy(network).to("meta"), size)
    except InputError as error:
        if "meta" not in str(error):
            raise
        return _run(copy.deepcopy(network), size)  # it looks at values, and must run for real


def _run(network: nn.Module, size: Sequence[int]) -> Trace:
    network.train()
    shape = (2, input_channels(network), *size)
    parameter = next(network.parameters())
    example = torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)
    found = Trace()
    results: dict[int, tuple[str, Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, _ConvNd):

            def record(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor, name: str = name) -> None:
                if inputs[0] is example and name not in found.first:
                    found.first.append(name)
                if name in found.executed:
                    found.executed.remove(name)
                found.executed.append(name)
                results[id(result)] = (name, result)  # kept, so that no other tensor gets its identity

            module.register_forward_hook(record)
    try:
        outputs = outputs_of(network(example))
    except (RuntimeError, ValueError, IndexError) as error:
        window = " x ".join(map(str, size))
        raise InputError(
            f"{type(network).__name__} does not run on a window of {window} voxels ({first_line(error)}).",
            [
                "The window is model.inferer.init_args.roi_size, which the shipped configs take from data.patch_size. "
                "Many networks need sizes that all of their downsamplings divide: try multiples of 16 or 32."
            ],
        ) from error
    found.channels = [output.shape[1] for output in outputs]
    if all(id(output) in results for output in outputs):
        found.last = [results[id(output)][0] for output in outputs]
    return found


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
        InputError: If no convolution takes the input itself, or one that does is grouped.
    """
    if input_channels(network) == channels:
        return network, []
    names = trace(network, size).first
    if not names:
        raise InputError(
            f"No convolution of {type(network).__name__} takes the input itself, so it cannot be given {channels} "
            "channels. Build it with as many."
        )
    network = copy.deepcopy(network)
    for name in names:
        convolution = network.get_submodule(name)
        if not isinstance(convolution, _ConvNd) or convolution.groups != 1:
            raise InputError(f"The first convolution '{name}' is grouped and cannot take {channels} channels.")
        old = convolution.weight.detach()
        axis = 0 if isinstance(convolution, _ConvTransposeNd) else 1
        source = old.mean(axis, keepdim=True) if how == "mean" else old
        taken = torch.arange(channels, device=old.device) % source.shape[axis]
        convolution.weight = nn.Parameter(source.index_select(axis, taken) * (old.shape[axis] / channels))
        convolution.in_channels = channels
    return network, names


def with_classes(
    network: nn.Module, classes: int, size: Sequence[int], head: Sequence[str] | None = None
) -> tuple[nn.Module, list[str]]:
    """Returns a copy with ``classes`` output channels, and the names of the modules that make up its head.

    The head is the shortest tail of convolutions with as many output channels as there are classes whose
    replacement gives a network that runs and has the wanted outputs. A plain U-Net's is its last convolution; where
    a residual block works on the class channels (MONAI's UNet with residual units), the convolution before it and
    the normalisation between them belong to the head as well. New weights are random.

    Args:
        network: Left as it is.
        classes: Number of classes wanted, background included.
        size: Voxels along x, y, z that the network can be run on.
        head: Names of the modules that make up the head, where they shall not be found in this way.

    Raises:
        InputError: If no such tail exists, or the named modules are none.
    """
    found = trace(network, size)
    old = found.channels[0]
    if head is not None:
        return _with_named_head(network, classes, size, head, found)
    tail = [name for name in found.executed if _out_channels(network.get_submodule(name)) == old]
    # with the right number already, another one shows what belongs to the head
    wanted = classes + 1 if old == classes else classes
    tails = [tail[-depth:] for depth in range(1, len(tail) + 1)]
    if len(found.last) > 1:  # between heads of several resolutions run others that may have as many channels by chance
        tails.insert(0, [name for name in found.executed if name in found.last])
    for convolutions in tails:
        if (resized := _with_head(network, convolutions, None, old, wanted, size)) is not None:
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
    convolutions = [name for name in found.executed if id(modules[name]) in inside]
    problems += [
        f"'{name}' has {_out_channels(modules[name])} output channels, the network {old}"
        for name in convolutions
        if _out_channels(modules[name]) != old
    ]
    if not problems and not convolutions:
        problems = ["there is no convolution among them that runs"]
    if problems:
        raise InputError(
            f"model.source.head is {list(head)}, expected the last modules of {type(network).__name__}:", problems
        )
    others = [name for name, module in network.named_modules() if id(module) in inside and has_channels(module, old)]
    wanted = classes + 1 if old == classes else classes
    resized = _with_head(network, convolutions, others, old, wanted, size)
    if resized is None:
        raise InputError(
            f"model.source.head is {list(head)}, but {type(network).__name__} does not give {wanted} channels with "
            "these modules replaced. Name all that work on the class channels."
        )
    return (copy.deepcopy(network) if old == classes else resized[0]), resized[1]


def _with_head(
    network: nn.Module,
    convolutions: Sequence[str],
    others: Sequence[str] | None,
    old: int,
    wanted: int,
    size: Sequence[int],
) -> tuple[nn.Module, list[str]] | None:
    """Returns a copy with another number of class channels and what was resized, or None if that does not run."""
    entry, *rest = convolutions
    takers = [name for name in rest if _takes(network.get_submodule(name), old)]
    # what has as many channels as there are classes works on these or, by chance, on as many of the backbone
    attempts = [(takers, others), ([], [] if others is None else others)]
    for inner, along in attempts if rest else attempts[:1]:
        candidate = copy.deepcopy(network)
        names = resize_tail(candidate, entry, rest, inner, along, old, wanted)
        try:
            if set(trace(candidate, size).channels) == {wanted}:
                return candidate, names
        except InputError:
            continue  # a skip connection joins old and new class channels: the head starts earlier
    return None


def _takes(module: nn.Module, channels: int) -> bool:
    return isinstance(module, _ConvNd) and module.in_channels == channels


def _out_channels(module: nn.Module) -> int:
    return int(module.out_channels) if isinstance(module, _ConvNd) else -1
