"""Showing the source network its images in negative, where that tells it more.

Between some contrasts of MRI what is bright becomes dark (T1w and T2w). A convolution of -x is that of x with the
weights' sign turned, so a network whose first convolutions are negated sees the negative of what it is given and is
otherwise the same: nothing else, neither data nor checkpoints, needs to know. Meant for images whose background is 0
and whose grey values lie around it, as ``riskft.data.prepare.intensity.ZScoreIntensity`` makes them.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from riskft.errors import InputError
from riskft.source.surgery import trace


def inverted_network(network: nn.Module, size: Sequence[int]) -> tuple[nn.Module, list[str]]:
    """Returns a copy that gives for x what the network gives for -x, and the names of the convolutions it differs in.

    Args:
        network: Left as it is.
        size: Voxels along x, y, z that the network can be run on.

    Raises:
        InputError: If no convolution takes the input itself, or one takes what was calculated from it.
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
