"""Changes the number of channels of layers."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from riskft.errors import InputError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)

_RUNNING_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)

LAYERS = (*CONVOLUTIONS, nn.Linear)  #: Layers whose weights map channels to other channels.
SIZED = (*LAYERS, *_RUNNING_NORMS, nn.GroupNorm, nn.PReLU)  #: Modules that have a number of channels.


def in_channels(module: nn.Module) -> int:
    """Returns the number of channels that a convolution or linear layer takes, -1 for anything else."""
    if isinstance(module, CONVOLUTIONS):
        return int(module.in_channels)
    return int(module.in_features) if isinstance(module, nn.Linear) else -1


def out_channels(module: nn.Module) -> int:
    """Returns the number of channels that a convolution or linear layer gives, -1 for anything else."""
    if isinstance(module, CONVOLUTIONS):
        return int(module.out_channels)
    return int(module.out_features) if isinstance(module, nn.Linear) else -1


def resize_tail(
    network: nn.Module, entry: str, rest: Sequence[str], inner: Sequence[str], others: Sequence[str], classes: int
) -> list[str]:
    """Resizes the class channels of ``entry``, ``rest`` and ``others``, in place, and returns these names.

    The layer ``entry`` takes the backbone's channels. Those of the other layers, ``rest``, that are in ``inner`` take
    class channels; ``others`` are normalisations and activations of class channels.
    """
    for name in (names := [entry, *rest, *others]):
        resize_outputs(network, name, outputs=classes, inputs=classes if name in inner else None)
    return names


@torch.no_grad()
def resize_norm(network: nn.Module, name: str, channels: int, mean: bool) -> None:
    """Changes a normalisation's number of channels, in place: to the mean of the old ones, or to these repeated."""
    old = network.get_submodule(name).state_dict()
    resize_outputs(network, name, outputs=channels)
    for key, value in network.get_submodule(name).state_dict().items():
        before = old[key]
        if before.ndim:
            source = before.mean(0, keepdim=True) if mean else before
            before = source[torch.arange(channels, device=source.device) % len(source)]
        value.copy_(before)


def has_channels(module: nn.Module, channels: int) -> bool:
    """Returns whether the module is a normalisation, or an activation with weights, of that many channels."""
    if isinstance(module, _RUNNING_NORMS):
        return bool(module.num_features == channels)
    if isinstance(module, nn.GroupNorm):
        return bool(module.num_channels == channels)
    return isinstance(module, nn.PReLU) and module.num_parameters == channels > 1


def resize_outputs(network: nn.Module, name: str, outputs: int, inputs: int | None = None) -> None:
    """Replaces a module by a newly initialised one with the same options and other numbers of channels.

    The new module is a changed copy because the constructor of a subclass may take any arguments. Raises InputError if
    it is a grouped convolution.
    """
    old = network.get_submodule(name)
    if getattr(old, "groups", 1) != 1:
        raise InputError(f"'{name}' is a grouped convolution, which cannot be given another number of channels.")
    new: Any = copy.deepcopy(old)
    shape = [outputs]
    if isinstance(old, LAYERS):
        inputs = inputs or in_channels(old)
        kernel = [inputs, outputs] if isinstance(old, TRANSPOSED) else [outputs, inputs]
        new.weight = nn.Parameter(new.weight.new_empty([*kernel, *new.weight.shape[2:]]))
        convolution = isinstance(old, CONVOLUTIONS)
        setattr(new, "in_channels" if convolution else "in_features", inputs)
        setattr(new, "out_channels" if convolution else "out_features", outputs)
    else:
        if isinstance(old, nn.GroupNorm):
            new.num_groups = outputs if old.num_groups == old.num_channels else math.gcd(old.num_groups, outputs)
        counts = {nn.GroupNorm: "num_channels", nn.PReLU: "num_parameters"}
        setattr(new, next((key for kind, key in counts.items() if isinstance(old, kind)), "num_features"), outputs)
        if "weight" in dict(new.named_parameters(recurse=False)):
            new.weight = nn.Parameter(new.weight.new_empty(shape))
    for key, value in list(new.named_buffers(recurse=False)):
        if value.ndim:
            setattr(new, key, value.new_empty(shape))
    if getattr(new, "bias", None) is not None:
        new.bias = nn.Parameter(new.bias.new_empty(shape))
    new.reset_parameters()
    for parent in list(network.modules()):  # a module may be registered in several places (DynUNet's heads are)
        for child, module in list(parent.named_children()):
            if module is old:
                setattr(parent, child, new)
