"""Giving any segmentation network another number of input channels or output classes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from riskft.errors import InputError


@dataclass
class Trace:
    """What one forward pass shows of a network.

    Attributes:
        first: Names of the convolutions that take the network's input.
        executed: Names of convolutions in the order of execution, each once.
        channels: Channels of each output (several with deep supervision).
    """

    first: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)


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
    for name, module in network.named_modules():
        if isinstance(module, _ConvNd):

            def record(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor, name: str = name) -> None:
                if inputs[0] is example and name not in found.first:
                    found.first.append(name)
                if name in found.executed:
                    found.executed.remove(name)
                found.executed.append(name)

            module.register_forward_hook(record)
    try:
        found.channels = [output.shape[1] for output in outputs_of(network(example))]
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{type(network).__name__} does not run on an input of shape {shape}: {error}") from error
    return found


def with_input_channels(network: nn.Module, channels: int, size: Sequence[int]) -> tuple[nn.Module, list[str]]:
    """Returns a copy whose first convolutions take ``channels`` channels, and their names (none if they do already).

    Each new channel's weights are the old channels' mean, scaled so that equal channels give the old response.

    Args:
        network: Left as it is.
        channels: Number of input channels wanted.
        size: Voxels along x, y, z that the network can be run on.
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
        scale = old.shape[axis] / channels
        new = old.mean(axis, keepdim=True).repeat_interleave(channels, axis) * scale
        convolution.weight = nn.Parameter(new)
        convolution.in_channels = channels
    return network, names


def with_classes(network: nn.Module, classes: int, size: Sequence[int]) -> tuple[nn.Module, list[str]]:
    """Returns a copy with ``classes`` output channels, and the names of the modules that make up its head.

    The head is the shortest tail of convolutions with as many output channels as there are classes whose
    replacement gives a network that runs and has the wanted outputs. A plain U-Net's is its last convolution; where
    a residual block works on the class channels (MONAI's UNet with residual units), the convolution before it and
    the normalisation between them belong to the head as well. New weights are random.

    Args:
        network: Left as it is.
        classes: Number of classes wanted, background included.
        size: Voxels along x, y, z that the network can be run on.

    Raises:
        InputError: If no such tail exists.
    """
    found = trace(network, size)
    old = found.channels[0]
    tail = [name for name in found.executed if _out_channels(network.get_submodule(name)) == old]
    # with the right number already, another one shows what belongs to the head
    wanted = classes + 1 if old == classes else classes
    for depth in range(1, len(tail) + 1):
        entry, *rest = tail[-depth:]
        candidate = copy.deepcopy(network)
        names = _resize_tail(candidate, entry, rest, old, wanted)
        try:
            if set(trace(candidate, size).channels) == {wanted}:
                return (copy.deepcopy(network) if old == classes else candidate), names
        except InputError:
            continue  # a skip connection joins old and new class channels: the head starts earlier
    if tail and old == classes:
        return copy.deepcopy(network), [tail[-1]]
    raise InputError(
        f"{type(network).__name__} has {old} output channels, but no convolution at its end can be replaced to give "
        f"{classes}. Build it with {classes} output channels."
    )


def _out_channels(module: nn.Module) -> int:
    return int(module.out_channels) if isinstance(module, _ConvNd) else -1


def _resize_tail(network: nn.Module, entry: str, rest: Sequence[str], old: int, classes: int) -> list[str]:
    """Resizes the class channels from ``entry`` on, in place; returns the names of what was resized."""
    names = [entry, *rest]
    _replace(network, entry, out_channels=classes)
    for name in rest:
        module = network.get_submodule(name)
        inner = isinstance(module, _ConvNd) and module.in_channels == old
        _replace(network, name, out_channels=classes, **({"in_channels": classes} if inner else {}))
    if rest:
        parents = {name.rpartition(".")[0] for name in names}
        common = _common_prefix(parents)
        for name, module in list(network.named_modules()):
            inside = not common or name.startswith(f"{common}.")
            if inside and isinstance(module, _NormBase) and module.num_features == old:
                _replace(network, name, num_features=classes)
                names.append(name)
            elif inside and isinstance(module, nn.PReLU) and module.num_parameters == old > 1:
                _replace(network, name, num_parameters=classes)
                names.append(name)
    return names


def _common_prefix(names: set[str]) -> str:
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _replace(network: nn.Module, name: str, **changes: int) -> None:
    """Puts a module of the same kind and options, but for the changes, in another's place."""
    old = network.get_submodule(name)
    if isinstance(old, _ConvNd):
        options = {
            key: getattr(old, key)
            for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        }
        options |= {"bias": old.bias is not None, "padding_mode": old.padding_mode}
        if isinstance(old, _ConvTransposeNd):
            options["output_padding"] = old.output_padding
    elif isinstance(old, _NormBase):
        options = {key: getattr(old, key) for key in ("eps", "momentum", "affine", "track_running_stats")}
    else:
        options = {}
    parameter = next(network.parameters())
    new = type(old)(**{**options, **changes}).to(parameter.device, parameter.dtype)
    for parent in list(network.modules()):  # a module may be registered in several places (DynUNet's heads are)
        for child, module in list(parent.named_children()):
            if module is old:
                setattr(parent, child, new)
