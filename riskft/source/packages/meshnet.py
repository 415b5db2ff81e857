"""MeshNet, brainchop's network of dilated 3-D convolutions on the full grid, and the files that describe one.

A model is a layer table ``<name>.json`` with the weights ``<name>.safetensors`` beside it. Architecture: Fedorov et al.
2017, End-to-end learning of brain tissue segmentation from imperfect labeling (arXiv 1612.00940). Trained models:
https://github.com/neuroneural/brainchop.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor, nn

from riskft.errors import InputError, refuse
from riskft.files import json_or_none
from riskft.source.packages.base import Package

_OPTIONS = ("bnorm", "elu", "gelu", "dropout_p", "bias")

WINDOW = (192, 192, 192)
"""Window of phase 1 in voxels: it holds a brain and a margin of background.

The networks' receptive field is 93 voxels along each axis, and they take the border of a window for the end of the
head. On a skull-stripped T1w volume the Dice of model5_gw_ae's white matter with the brightest of three grey-value
clusters was 0.32 with windows of 64 voxels, 0.66 with 96, 0.71 with 128, 0.75 with 160, and 0.76 with 192 and 224.
"""


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

    Every convolution but the last is followed by an optional normalisation, an activation and an optional dropout.
    Parameters are named as in the published files: ``model.<n>.weight``, with n the position in the chain.

    Args:
        layers: The convolutions in order, as in brainchop's layer tables.
        bnorm: Use batch normalisation with running statistics. Files without these do not load.
        elu: Use ELU as the activation. Without this and ``gelu``, ReLU is used.
        gelu: Use GELU as the activation.
        dropout_p: Probability of dropping a channel.
        bias: Whether the convolutions have a bias.

    Raises:
        InputError: If the table is not a chain of convolutions that keep the grid.
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
        refuse("riskft.MeshNet cannot be built:", problems)
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
    """Returns what is wrong with a layer table, one line per fault."""
    if not layers:
        return ["layers is empty, expected one entry per convolution"]
    problems: list[str] = []
    for number, layer in enumerate(layers):
        if set(layer) != set(Layer.__annotations__):
            problems.append(f"layer {number} has {sorted(layer)}, expected {sorted(Layer.__annotations__)}")
        elif layer["stride"] != 1 or 2 * layer["padding"] != layer["dilation"] * (layer["kernel_size"] - 1):
            problems.append(f"layer {number} changes the grid: {layer}, expected stride 1 and padding that keeps it")
    if problems:
        return problems
    return [
        f"layer {number} takes {after['in_channels']} channels, but the one before gives {before['out_channels']}"
        for number, (before, after) in enumerate(pairwise(layers), start=1)
        if before["out_channels"] != after["in_channels"]
    ]


def find(path: Path) -> Package | None:
    """Returns the model of a layer table, its weights, or the folder of one such pair; None for anything else.

    The preprocessing defaults are brainchop's: 1 mm, axes that point left, inferior and anterior (LIA), the 2nd to 98th
    percentile of the whole volume scaled to 0..1, no cropping. Padding the ICBM152 template to brainchop's 256 voxels
    changed no tissue's Dice by more than 0.001. The axes matter: on this template model18cls finds the hippocampi in
    the right place (26 mm from the midline, y -21, z -15) with LIA and not at all with RAS; model21_104class labels the
    sides correctly in 99.9 % of their voxels with LIA and in 0.4 % with RIA. Raises InputError if a table lacks its
    weights, or a folder holds several pairs.
    """
    table = _table_of(path)
    if table is None:
        return None
    content = _read_table(table)
    if content is None:
        return None
    weights = table.with_suffix(".safetensors")
    if not weights.is_file():
        raise InputError(f"{table}: a MeshNet's layer table, expected its weights {weights.name} beside it: add them.")
    layers = content["layers"]
    options = {key: content[key] for key in _OPTIONS if key in content}
    window = {"roi_size": list(WINDOW), "sw_batch_size": 1, "overlap": 0.25, "mode": "gaussian"}
    source = {
        "network": {"class_path": "riskft.MeshNet", "init_args": {"layers": layers, **options}},
        "output": {"class_path": "riskft.SoftmaxOutput"},
        "inferer": {"class_path": "monai.inferers.SlidingWindowInferer", "init_args": window},
    }
    intensity = {"class_path": "riskft.PercentileIntensity", "init_args": {"low": 2.0, "high": 98.0}}
    grid = {"spacing": [1.0, 1.0, 1.0], "orientation": "LIA", "crop": False}
    return Package(
        weights=weights,
        config={"model": {"source": source}, "data": {"preprocessing": {**grid, "intensity": intensity}}},
        class_names=_class_names(table, layers[-1].get("out_channels")),
        in_channels=layers[0].get("in_channels"),
    )


def _table_of(path: Path) -> Path | None:
    """Returns the path where the layer table is or should be, or None if the path is something else."""
    if path.is_dir():
        pairs = [file.with_suffix(".json") for file in sorted(path.glob("*.safetensors"))]
        tables = [table for table in pairs if _read_table(table) is not None]
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables)
            raise InputError(f"{path} holds several MeshNets ({names}): set model.source.checkpoint to one of these.")
        return tables[0] if tables else None
    return {".json": path, ".safetensors": path.with_suffix(".json")}.get(path.suffix)


def _read_table(path: Path) -> dict[str, Any] | None:
    """Returns the content of a layer table, or None if the file is missing or something else."""
    content = json_or_none(path)
    layers = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(layers, list) or not layers:
        return None
    return content if all(isinstance(layer, dict) and "dilation" in layer for layer in layers) else None


def _class_names(table: Path, classes: int | None) -> tuple[str, ...] | None:
    """Returns the labels in the colour table beside the layer table, or None unless there is one per class."""
    content = json_or_none(table.with_suffix(".colormap.json"))
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or len(labels) != classes:
        return None  # that of model5_gw_ae names 2 of 3 classes
    return tuple(str(label) for label in labels)
