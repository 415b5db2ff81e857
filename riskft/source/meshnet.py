"""MeshNet, the network of brainchop: dilated 3-D convolutions on the full grid.

The architecture: Fedorov et al. 2017, End-to-end learning of brain tissue segmentation from imperfect labeling
(arXiv 1612.00940); the trained models: https://github.com/neuroneural/brainchop.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypedDict

from torch import Tensor, nn

from riskft.errors import InputError


class Layer(TypedDict):
    """One convolution: cubic kernel, the same dilation and zero padding along x, y and z."""

    in_channels: int
    out_channels: int
    kernel_size: int
    padding: int
    stride: int
    dilation: int


class MeshNet(nn.Module):
    """A chain of dilated convolutions without down- or upsampling.

    All but the last convolution are followed by a normalisation if there is one, an activation and a dropout if there
    is one. Parameters have the names of the published files, ``model.<n>.weight`` with n the position in that chain.

    Args:
        layers: The convolutions in their order, as in brainchop's layer tables.
        bnorm: Batch normalisation with running statistics. Files that lack these do not load.
        elu: ELU as the activation. Without this and ``gelu`` it is ReLU.
        gelu: GELU as the activation.
        dropout_p: Probability with which the dropout drops a channel.
        bias: Whether the convolutions have one.

    Raises:
        InputError: If the table is no chain of convolutions that keep the grid.
    """

    def __init__(
        self,
        layers: list[Layer],
        bnorm: bool = False,
        elu: bool = False,
        gelu: bool = False,
        dropout_p: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        problems = _problems(layers)
        if elu and gelu:
            problems.append("elu and gelu are both true, expected one activation")
        if problems:
            raise InputError("riskft.MeshNet cannot be built:", problems)
        parts: list[nn.Module] = []
        for layer in layers[:-1]:
            parts.append(nn.Conv3d(**layer, bias=bias))
            if bnorm:
                parts.append(nn.BatchNorm3d(layer["out_channels"]))
            parts.append(nn.ELU(inplace=True) if elu else nn.GELU() if gelu else nn.ReLU(inplace=True))
            if dropout_p > 0:
                parts.append(nn.Dropout3d(dropout_p))
        self.model = nn.Sequential(*parts, nn.Conv3d(**layers[-1], bias=bias))

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits (B, classes, X, Y, Z) of images (B, C, X, Y, Z)."""
        logits: Tensor = self.model(image)
        return logits


def _problems(layers: Sequence[Layer]) -> list[str]:
    """Returns what is wrong with a layer table, one line a fault."""
    if not layers:
        return ["layers is empty, expected one entry a convolution"]
    problems: list[str] = []
    for number, layer in enumerate(layers):
        if set(layer) != set(Layer.__annotations__):
            problems.append(f"layer {number} has {sorted(layer)}, expected {sorted(Layer.__annotations__)}")
        elif layer["stride"] != 1 or 2 * layer["padding"] != layer["dilation"] * (layer["kernel_size"] - 1):
            problems.append(f"layer {number} changes the grid: {layer}, expected stride 1 and padding for it")
    if problems:
        return problems
    return [
        f"layer {number} takes {after['in_channels']} channels, but the one before gives {before['out_channels']}"
        for number, (before, after) in enumerate(pairwise(layers), start=1)
        if before["out_channels"] != after["in_channels"]
    ]
