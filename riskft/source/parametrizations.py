"""Replaces layers with a weight or spectral norm by plain ones with the same values."""

import copy
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from riskft.compat import SPECTRAL_NORM, WEIGHT_NORM
from riskft.errors import InputError


def copied(network: nn.Module) -> nn.Module:
    """Returns a deep copy; raises InputError if the network cannot be copied."""
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise InputError(
            f"{type(network).__name__} cannot be copied ({' '.join(str(error).split())[:120]}).",
            [
                "It may use torch.nn.utils.weight_norm or spectral_norm: build it with those of "
                "torch.nn.utils.parametrizations, which can be copied, or without."
            ],
        ) from error


def plain(network: nn.Module) -> nn.Module:
    """Returns a float32 copy without parametrised layers that computes what the network computes in evaluation.

    Plain weights can be resized, mixed, negated and fine-tuned. Raises InputError if the network cannot be copied.
    """
    network = copied(network).float()
    for module in list(network.modules()):
        if is_parametrized(module):
            _resolve(module)
    return network


def _resolve(module: nn.Module) -> None:
    """Replaces a layer's parametrised tensors by plain ones.

    torch's remove_parametrizations deletes a property of the layer's class, which breaks copies that share the class.
    """
    training = module.training
    module.eval()  # in training mode spectral_norm would do a power iteration
    lists = dict(module.parametrizations.items())  # type: ignore[operator, union-attr]
    values = {name: getattr(module, name).detach().clone() for name in lists}
    module.train(training)
    module.__class__ = type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        if next(lists[name].parameters(), None) is None:
            module.register_buffer(name, value)
        else:
            module.register_parameter(name, nn.Parameter(value))


def has_parametrizations(state: Mapping[str, Tensor]) -> bool:
    """Returns whether the state comes from a network with parametrised layers."""
    return any(".parametrizations." in f".{key}" for key in state)


def with_current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state with the entries of torch's old weight and spectral norms renamed to those of the new ones."""
    renamed = {}
    for key, value in state.items():
        layer, dot, name = key.rpartition(".")
        names = SPECTRAL_NORM if f"{layer}{dot}weight_orig" in state else WEIGHT_NORM
        known = all(f"{layer}{dot}{old}" in state for old in names)
        renamed[f"{layer}{dot}{names.get(name, name) if known else name}"] = value
    return renamed
