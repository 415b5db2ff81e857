"""Parameter groups of an optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


def parameter_groups(network: nn.Module, head: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a network's parameters in the groups ``backbone`` and ``head``, the modules with these names."""
    of_head = {id(parameter) for name in head for parameter in network.get_submodule(name).parameters()}
    parts: dict[str, list[nn.Parameter]] = {"backbone": [], "head": []}
    for parameter in network.parameters():
        parts["head" if id(parameter) in of_head else "backbone"].append(parameter)
    return _named(parts)


def trial_groups() -> list[dict[str, Any]]:
    """Returns the same groups with one number in each, to try an optimizer on."""
    return _named({name: [nn.Parameter(torch.zeros(1))] for name in ("backbone", "head")})


def _named(parts: Mapping[str, list[nn.Parameter]]) -> list[dict[str, Any]]:
    return [{"params": part, "name": name} for name, part in parts.items()]
