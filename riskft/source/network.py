"""The source network: an architecture and, unless it is trained from scratch, its weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from riskft.errors import InputError
from riskft.source.adapt import load_source
from riskft.source.checkpoint import read_checkpoint, state_digest
from riskft.source.surgery import with_classes, with_input_channels


@dataclass
class Source:
    """Where fine-tuning starts.

    Args:
        network: Any convolutional segmentation network by ``class_path``, with the options that it was trained with.
            For checkpoints that riskft wrote, the numbers of classes and channels are taken from the file.
        checkpoint: Its weights: a riskft or Lightning ``.ckpt``, or a state dict. null trains from scratch.
    """

    network: nn.Module
    checkpoint: str | None = None


@dataclass(frozen=True)
class LoadedSource:
    """The source network, ready for phase 1: its own head, the target's input channels, frozen.

    Attributes:
        network: In evaluation mode, without gradients.
        class_names: Source class names if riskft trained it, else None.
        adapted: Names of first convolutions that were adapted to the target's number of channels.
        unused: Keys of the checkpoint without use.
        digest: Fingerprint of the source's weights.
    """

    network: nn.Module
    class_names: tuple[str, ...] | None
    adapted: tuple[str, ...]
    unused: tuple[str, ...]
    digest: str


def load(source: Source, in_channels: int, size: Sequence[int]) -> LoadedSource:
    """Builds the frozen source network from its checkpoint.

    Args:
        source: Architecture and file; the architecture is copied, not changed.
        in_channels: The target's number of channels.
        size: Voxels along x, y, z that the network can be run on.

    Raises:
        InputError: If there is no checkpoint, or it does not fit.
    """
    if source.checkpoint is None:
        raise InputError("model.source.checkpoint is not set, and phase 1 needs a trained source network.")
    path = Path(source.checkpoint)
    checkpoint = read_checkpoint(path)
    network = copy.deepcopy(source.network)
    if checkpoint.in_channels is not None:
        network, _ = with_input_channels(network, checkpoint.in_channels, size)
    if checkpoint.class_names is not None:
        network, _ = with_classes(network, len(checkpoint.class_names), size)
    unused = load_source(network, checkpoint)
    digest = state_digest(network.state_dict())
    network, adapted = with_input_channels(network, in_channels, size)
    for value in network.state_dict().values():  # running statistics too
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: holds NaN or infinite weights. Use an earlier checkpoint.")
    return LoadedSource(
        network=network.eval().requires_grad_(False),
        class_names=checkpoint.class_names,
        adapted=tuple(adapted),
        unused=tuple(unused),
        digest=digest,
    )
