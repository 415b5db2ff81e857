"""The source network: an architecture and, unless it is trained from scratch, its weights."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from monai.inferers import Inferer
from torch import nn

from riskft.errors import InputError
from riskft.run.record import Record
from riskft.source.adapt import load_source
from riskft.source.checkpoint import Checkpoint, read_checkpoint, state_digest
from riskft.source.invert import inverted_network
from riskft.source.output import SigmoidOutput, SoftmaxOutput, SourceOutput
from riskft.source.outputs import Readings
from riskft.source.plain import copied, has_parametrizations, plain, with_today_s_names
from riskft.source.read import describe, readings
from riskft.source.surgery import FirstConvolution, trace, with_classes, with_input_channels

log = logging.getLogger(__name__)


@dataclass
class Source:
    """Where fine-tuning starts.

    Args:
        network: Any convolutional segmentation network by ``class_path``, with the options that it was trained with.
            For checkpoints that riskft wrote, the numbers of classes and channels are taken from the file. null takes
            the checkpoint's own description, where it has one.
        checkpoint: Its weights: a riskft or Lightning ``.ckpt``, a state dict (``.pt``, ``.pth``, ``.safetensors``), or
            a model that describes itself (nnU-Net v2 folder, MONAI bundle, MeshNet).
        weights: Which copy of the weights to take where the checkpoint holds several, such as ``net_ema`` or
            ``model_ema``. null takes the one that fits best; the log names the others.
        load: What training takes from the checkpoint: the weights of the ``network``, or ``none``, which trains from
            scratch whatever ``checkpoint`` is. A model that describes itself still gives its architecture and defaults.
        head: Name or names of the modules that make up the network's head. null finds them.
        first_convolution: How its first convolution is adapted to another number of channels: each new channel starts
            as the ``mean`` of the old ones, or the old ones are ``repeat``-ed in turn.
        min_loaded: Share of the parameters that the checkpoint must fill in plain fine-tuning (phase 1 needs all).
        output: What the output channels mean: ``riskft.SoftmaxOutput`` or ``riskft.SigmoidOutput``, and if the network
            returns probabilities already (``applied``). null for the sigmoid if the network ends in one, else softmax.
        inferer: How phase 1 runs the source over whole volumes; null for ``model.inferer``. A network that needs to see
            more than a training patch wants a window of its own.
        invert: Show the source its images in negative (x becomes -x; the fine-tuned network keeps that): ``auto`` lets
            phase 1 find out which of the two tells it more of the target's classes, which costs a second pass over at
            most eight training volumes. For images whose background is 0.
    """

    network: nn.Module | None = None
    checkpoint: str | None = None
    weights: str | None = None
    load: Literal["network", "none"] = "network"
    head: list[str] | str | None = None
    first_convolution: FirstConvolution = "mean"
    min_loaded: float = 0.5
    output: SourceOutput | None = None
    inferer: Inferer | None = None
    invert: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        self.head = [self.head] if isinstance(self.head, str) else self.head
        if not 0 <= self.min_loaded <= 1:
            raise InputError(f"model.source.min_loaded is {self.min_loaded}, expected a share from 0 to 1.")


@dataclass(frozen=True)
class LoadedSource:
    """The source network, ready for phase 1: its own head, the target's input channels, frozen.

    Attributes:
        network: In evaluation mode, without gradients.
        output: What its output channels mean.
        read: How its result is read.
        channels: Number of its output channels.
        last: Names of the convolutions that give the outputs, see ``Trace``.
        class_names: Names of the output channels if the checkpoint says them, else None.
        adapted: Names of first convolutions that were adapted to the target's number of channels.
        missing: Keys of the network that the checkpoint did not fill.
        unused: Keys of the checkpoint without use.
        digest: Fingerprint of the source's weights.
        inverted: Whether it sees its images in negative.
        record: What it was made with if riskft trained it, else None.
    """

    network: nn.Module
    output: SourceOutput
    read: Readings
    channels: int
    last: tuple[str, ...]
    class_names: tuple[str, ...] | None
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    digest: str
    inverted: bool = False
    record: Record | None = None


def architecture(source: Source) -> nn.Module:
    """Returns the source's network as configured.

    Raises:
        InputError: If there is none.
    """
    if source.network is not None:
        return source.network
    if source.checkpoint is None:
        raise InputError("model.source.network is not set. Give it by class_path, as in configs/model/unet.yaml.")
    raise InputError(
        f"{source.checkpoint}: does not say what network it belongs to, and model.source.network is not set.",
        [
            "Those that say it: nnU-Net v2 trained-model folders, MONAI bundle folders, MeshNet's .json beside its "
            "weights. For all others give model.source.network by class_path, as in configs/model/unet.yaml."
        ],
    )


def load(source: Source, in_channels: int, size: Sequence[int], *, whole: bool = True) -> LoadedSource:
    """Builds the frozen source network from its checkpoint; where ``invert`` is ``auto``, not inverted.

    Args:
        source: Architecture and file; the architecture is copied, not changed.
        in_channels: The target's number of channels.
        size: Voxels along x, y, z that the network can be run on.
        whole: Nothing may be missing, which phase 1 needs. Else ``source.min_loaded`` of the parameters are enough; the
            others keep the values that they were initialised with, with a warning.

    Raises:
        InputError: If there is no checkpoint, or it does not fit.
    """
    if source.checkpoint is None:
        raise InputError("model.source.checkpoint is not set, and phase 1 needs a trained source network.")
    checkpoint = read_checkpoint(Path(source.checkpoint))
    network = copied(architecture(source)).float()
    states = {path: with_today_s_names(state) for path, state in checkpoint.states.items()}
    if has_parametrizations(network.state_dict()) and any(map(has_parametrizations, states.values())):
        checkpoint = replace(checkpoint, states=states)
    else:
        network = _as_described(plain(network), checkpoint, size, source)
    loaded = load_source(network, checkpoint, size, whole=whole, min_loaded=source.min_loaded, weights=source.weights)
    if loaded.missing:
        log.warning(
            "%s: %s of the network's %s entries are not in it and start anew: %s",
            checkpoint.path,
            len(loaded.missing),
            len(network.state_dict()),
            ", ".join(loaded.missing[:5]) + (", ..." if len(loaded.missing) > 5 else ""),
        )
    network = plain(network)
    digest = state_digest(network.state_dict())
    network, adapted = with_input_channels(network, in_channels, size, source.first_convolution)
    for value in network.state_dict().values():  # running statistics too
        if not torch.isfinite(value).all():
            raise InputError(f"{checkpoint.path}: holds NaN or infinite weights. Use an earlier checkpoint.")
    found = trace(network, size)
    read = readings(network, size, source.output)
    for line in describe(network, read):
        log.info(line)
    result = LoadedSource(
        network=network.eval().requires_grad_(False),
        output=source.output or _default_output(read, checkpoint),
        read=read,
        channels=found.channels[0],
        last=tuple(found.last),
        class_names=checkpoint.class_names,
        adapted=tuple(adapted),
        missing=loaded.missing,
        unused=loaded.unused,
        digest=digest,
        record=checkpoint.record,
    )
    return inverted(result, size) if source.invert is True else result


def _as_described(network: nn.Module, checkpoint: Checkpoint, size: Sequence[int], source: Source) -> nn.Module:
    """Returns the network with the numbers of channels and classes that the checkpoint says, where it says them."""
    if checkpoint.in_channels is not None:
        network, _ = with_input_channels(network, checkpoint.in_channels, size, source.first_convolution)
    if checkpoint.class_names is not None:
        network, _ = with_classes(network, len(checkpoint.class_names), size, source.head)
    return network


def _default_output(read: Readings, checkpoint: Checkpoint) -> SourceOutput:
    """Returns what output channels mean of which nobody says it; those that riskft trained are classes."""
    sigmoid = read.evaluation.activation == "sigmoid" and checkpoint.class_names is None
    return SigmoidOutput() if sigmoid else SoftmaxOutput()


def inverted(source: LoadedSource, size: Sequence[int]) -> LoadedSource:
    """Returns the source network as it sees its images in negative.

    Args:
        source: Left as it is.
        size: Voxels along x, y, z that the network can be run on.

    Raises:
        InputError: If no convolution takes the input itself.
    """
    network, names = inverted_network(source.network, size)
    adapted = tuple(dict.fromkeys([*source.adapted, *names]))
    return replace(source, network=network, adapted=adapted, inverted=True)
