"""Replacing convolutions, normalisations and activations by others with another number of channels, in place."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def resize_tail(
    network: nn.Module,
    entry: str,
    rest: Sequence[str],
    inner: Sequence[str],
    others: Sequence[str] | None,
    old: int,
    classes: int,
) -> list[str]:
    """Resizes the class channels from ``entry`` on, in place; returns the names of what was resized.

    Those in ``inner`` take class channels. The normalisations and activations between the convolutions are ``others``,
    or if None those with as many channels below the modules that the convolutions have in common.
    """
    _replace(network, entry, out_channels=classes)
    for name in rest:
        _replace(network, name, out_channels=classes, **({"in_channels": classes} if name in inner else {}))
    if others is None:
        names = [entry, *rest]
        common = _common_prefix({name.rpartition(".")[0] for name in names})
        others = [
            name
            for name, module in network.named_modules()
            if rest and (not common or name.startswith(f"{common}.")) and has_channels(module, old)
        ]
    for name in others:
        norm = isinstance(network.get_submodule(name), _NormBase)
        _replace(network, name, **{"num_features" if norm else "num_parameters": classes})
    return [entry, *rest, *others]


def has_channels(module: nn.Module, channels: int) -> bool:
    """Returns whether the module is a normalisation of, or an activation with weights for, so many channels."""
    if isinstance(module, _NormBase):
        return bool(module.num_features == channels)
    return isinstance(module, nn.PReLU) and module.num_parameters == channels > 1


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
