"""Turns the options of a source into the network that phase 1 runs: reads the checkpoint, loads and adapts it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn

from riskft.errors import InputError, first_few
from riskft.source.activation import describe, readings
from riskft.source.checkpoint import Checkpoint, read_checkpoint, state_digest
from riskft.source.classes import with_classes
from riskft.source.copies import choose_copy, misfit
from riskft.source.input_channels import with_input_channels
from riskft.source.network import SourceNetwork
from riskft.source.output import SigmoidOutput, SoftmaxOutput, SourceOutput
from riskft.source.parametrizations import copied, has_parametrizations, plain, with_current_names
from riskft.source.reading import Readings
from riskft.source.source import Source
from riskft.source.trace import trace
from riskft.source.transfer import share_of

log = logging.getLogger(__name__)


def load_source(
    source: Source,
    in_channels: int,
    size: Sequence[int],
    inferer: Inferer | None = None,
    *,
    channels_last: bool = False,
    whole: bool = True,
) -> SourceNetwork:
    """Builds the frozen source network from its checkpoint; not inverted if ``invert`` is ``auto``.

    The architecture is copied, not changed. ``size`` is a window that the network can run on, voxels along x, y, z.
    Whole volumes go through the source's own inferer, else through ``inferer``, else through the network in one pass.
    Phase 1 needs the ``whole`` network; otherwise ``source.min_loaded`` of the parameters are enough, and the others
    keep their initial values, with a warning. Raises InputError if no checkpoint is set, ``source.load`` is ``none``,
    or the checkpoint does not fit.
    """
    checkpoint = read_checkpoint(_checkpoint_of(source))
    network, missing, unused = _trained(source, checkpoint, size, whole)
    state = network.state_dict()
    # what the checkpoint lacks has random values, which are others each time
    digest = state_digest({key: value for key, value in state.items() if key not in set(missing)})
    network, adapted = with_input_channels(network, in_channels, size, source.first_convolution)
    for value in network.state_dict().values():  # includes running statistics
        if not torch.isfinite(value).all():
            raise InputError(f"{checkpoint.path}: holds NaN or infinite weights. Use an earlier checkpoint.")
    found = trace(network, size)
    read = readings(network, size, source.output)
    for line in describe(network, read):
        log.info(line)
    loaded = SourceNetwork(
        network=network.eval().requires_grad_(False),
        output=source.output or _default_output(read, checkpoint),
        read=read,
        channels=found.channels[0],
        last=tuple(found.last),
        size=tuple(size),
        digest=digest,
        class_names=checkpoint.class_names,
        adapted=tuple(adapted),
        missing=missing,
        unused=unused,
        inferer=source.inferer or inferer or SimpleInferer(),
        channels_last=channels_last,
        record=checkpoint.record,
    )
    return loaded.with_inversion() if source.invert is True else loaded


def say_not_loaded(source: Source) -> None:
    """Logs that a given checkpoint is not used because training starts from scratch."""
    if source.checkpoint is not None:
        log.info(
            "The weights of %s are not loaded, because model.source.load is none: training starts from scratch.",
            source.checkpoint,
        )


def _checkpoint_of(source: Source) -> Path:
    if source.load == "none":
        raise InputError(
            "model.source.load is none, and phase 1 (riskft.RiskMapCallback in trainer.callbacks) needs a source's "
            "weights. To train from scratch, use configs/method/scratch.yaml alone, which has no phase 1; to start "
            "from the source, set model.source.load to network."
        )
    if source.checkpoint is None:
        raise InputError(
            "model.source.checkpoint is not set, and training starts from its weights (model.source.load is network). "
            "Set it; or to train from scratch, use configs/method/scratch.yaml, which sets model.source.load to none."
        )
    return Path(source.checkpoint)


def _trained(
    source: Source, checkpoint: Checkpoint, size: Sequence[int], whole: bool
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """Returns the network with the checkpoint's weights, and the missing and unused keys of ``fill``."""
    network = copied(source.architecture()).float()
    states = {path: with_current_names(state) for path, state in checkpoint.states.items()}
    if has_parametrizations(network.state_dict()) and any(map(has_parametrizations, states.values())):
        checkpoint = replace(checkpoint, states=states)
    else:
        network = _as_described(plain(network), checkpoint, size, source)
    least = None if whole else source.min_loaded
    missing, unused = fill(network, checkpoint, size, min_loaded=least, weights=source.weights)
    if missing:
        log.warning(
            "%s: %s of the network's %s entries are not in it and keep their initial values: %s",
            checkpoint.path,
            len(missing),
            len(network.state_dict()),
            ", ".join(first_few(missing, 5)),
        )
    return plain(network), missing, unused


def _as_described(network: nn.Module, checkpoint: Checkpoint, size: Sequence[int], source: Source) -> nn.Module:
    """Returns the network with the numbers of channels and classes that the checkpoint states, if any."""
    if checkpoint.in_channels is not None:
        network, _ = with_input_channels(network, checkpoint.in_channels, size, source.first_convolution)
    if checkpoint.class_names is not None:
        network, _ = with_classes(network, len(checkpoint.class_names), size, source.head)
    return network


def fill(
    network: nn.Module,
    checkpoint: Checkpoint,
    size: Sequence[int],
    *,
    min_loaded: float | None = None,
    weights: str | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Loads a checkpoint's parameters into the source network, in place, and returns two lists of keys.

    The first are the network's entries that the checkpoint lacks or has in another shape, which keep their values; the
    second the checkpoint's keys that the network does not have. The checkpoint must fill ``min_loaded`` of the
    parameters' elements, with the same name and shape, or all (None): the risk map needs the complete source network,
    head included; plain fine-tuning can do with less. For ``weights``, see ``choose_copy``. Raises InputError, and
    leaves the network unchanged, if too much is missing or the weights are integers.
    """
    own = network.state_dict()
    state = choose_copy(checkpoint.states, own, weights).state
    missing = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    loaded = 1 - share_of(network, missing)
    if missing and (min_loaded is None or loaded < min_loaded):
        share = None if min_loaded is None else (loaded, min_loaded)
        raise misfit(network, checkpoint.path, state, missing, size, share)
    for key, value in own.items():
        if value.is_floating_point() and key in state and not state[key].is_floating_point():
            raise InputError(
                f"{checkpoint.path}: '{key}' holds {str(state[key].dtype).removeprefix('torch.')} numbers, expected "
                "floating-point ones: the weights are quantised. Give the weights from before quantisation."
            )
    network.load_state_dict({key: own[key] if key in set(missing) else state[key] for key in own})
    return tuple(missing), tuple(sorted(set(state) - set(own)))


def _default_output(read: Readings, checkpoint: Checkpoint) -> SourceOutput:
    """Returns the output used if ``model.source.output`` is not set; a network that riskft trained has classes."""
    sigmoid = read.evaluation.activation == "sigmoid" and checkpoint.class_names is None
    return SigmoidOutput() if sigmoid else SoftmaxOutput()
