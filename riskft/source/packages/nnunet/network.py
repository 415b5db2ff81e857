"""Builds the network that an nnU-Net plan describes."""

import importlib
import re
from types import ModuleType
from typing import Any, cast

from torch import nn

from riskft.errors import InputError

_ARCHITECTURES = "dynamic_network_architectures.architectures"


def nnunet_network(
    network_class_name: str,
    arch_kwargs: dict[str, Any],
    in_channels: int,
    num_classes: int,
    deep_supervision: bool = True,
) -> nn.Module:
    """Builds the network that an nnU-Net plan describes; usable as ``class_path: riskft.nnunet_network``.

    A plan is an untrusted file that names Python classes. Only networks of ``dynamic_network_architectures`` and
    classes of ``torch.nn`` are accepted; anything else is refused without being imported.

    Args:
        network_class_name: The plan's class, e.g. ``dynamic_network_architectures.architectures.unet.PlainConvUNet``.
        arch_kwargs: The plan's options, classes by name, with ``kernel_sizes`` and ``strides`` along x, y, z.
        in_channels: Number of input channels.
        num_classes: Number of output channels.
        deep_supervision: Return the outputs of all resolutions as a list, finest first, as nnU-Net trains. If false,
            the coarser heads exist so that the weights fit, but are neither run nor trained.

    Raises:
        InputError: If the package is not installed, the class is not one of its networks, an option names anything
            but a class of ``torch.nn``, or the options do not fit.
    """
    network_class = _network_class(network_class_name)
    options = {key: _torch_class(key, value) if isinstance(value, str) else value for key, value in arch_kwargs.items()}
    options |= {"input_channels": in_channels, "num_classes": num_classes, "deep_supervision": deep_supervision}
    try:
        network = network_class(**options)
    except (TypeError, ValueError, AssertionError, IndexError) as error:
        raise InputError(
            f"{network_class_name} cannot be built with arch_kwargs {dict(arch_kwargs)}: {error}"
        ) from error
    initialize = getattr(network, "initialize", None)
    return network.apply(initialize) if initialize is not None else network


def _network_class(name: str) -> type[nn.Module]:
    match = re.fullmatch(rf"{re.escape(_ARCHITECTURES)}\.(\w+)\.(\w+)", name)
    if match is None:
        raise InputError(f"network_class_name is '{name}', expected a network of {_ARCHITECTURES}; it is not imported.")
    try:
        # some versions' plans name a module that the package never had; nnU-Net then searches for the class name
        modules = [_module(match[1]), importlib.import_module(f"{_ARCHITECTURES}.unet")]
    except ImportError as error:
        raise InputError(f"nnU-Net's networks need another package ({error}): pip install 'riskft[nnunet]'.") from error
    for module in modules:
        found = getattr(module, match[2], None)
        own = isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith(_ARCHITECTURES)
        if own:
            return cast("type[nn.Module]", found)
    raise InputError(
        f"network_class_name is '{name}', which the installed dynamic_network_architectures does not have."
    )


def _module(name: str) -> ModuleType | None:
    path = f"{_ARCHITECTURES}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        return None


def _torch_class(key: str, name: str) -> type[nn.Module]:
    found = vars(nn).get(name.rpartition(".")[2])
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        found = None
    # by its short name or the module that defines it
    if found is None or name not in (f"torch.nn.{found.__name__}", f"{found.__module__}.{found.__qualname__}"):
        raise InputError(f"arch_kwargs.{key} is '{name}', expected a class of torch.nn; it is not imported.")
    return found
