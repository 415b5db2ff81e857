"""Finding out how a network's result is read: which of its outputs is the segmentation, and if it is logits."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from riskft.errors import InputError
from riskft.source.output import SourceOutput
from riskft.source.outputs import Reading, Readings
from riskft.source.surgery import trace

log = logging.getLogger(__name__)


def readings(network: nn.Module, size: Sequence[int], output: SourceOutput | None) -> Readings:
    """Returns how the network's result is read.

    A network that ends in a softmax or sigmoid is recognised by its computation. Outputs that become probabilities in
    another way are recognised when it runs, see ``ProbabilityCheck``.

    Args:
        network: Left as it is.
        size: Voxels along x, y, z that it can be run on.
        output: What its output channels mean; its ``applied`` overrules what was found.

    Raises:
        InputError: If the network does not run, or its output has no gradient.
    """
    train = trace(network, size)
    if not train.differentiable:
        raise InputError(
            f"The output of {type(network).__name__} has no gradient (it may be an argmax, one-hot coded, or computed "
            "under no_grad). riskft needs logits or probabilities; have the network return these."
        )
    found = Readings(train.reading, trace(network, size, training=False).reading)
    if output is None or output.applied is None:
        return found
    if not output.applied:
        return Readings(replace(found.training, activation=None), replace(found.evaluation, activation=None))
    if found.evaluation.activation is not None:
        return found  # maybe while it does not train alone
    return Readings(_applied(found.training, output), _applied(found.evaluation, output))


def _applied(reading: Reading, output: SourceOutput) -> Reading:
    return replace(reading, activation=output.activation)


def freeze_unused(network: nn.Module, found: Readings) -> None:
    """Freezes the parameters that no trained output depends on, in place.

    Nothing would train them anyway, but on several devices each step would wait for their gradients.
    """
    for name in found.training.unused:
        network.get_parameter(name).requires_grad_(False)


def describe(network: nn.Module, found: Readings) -> list[str]:
    """Returns what a user should know of how the network is read, one sentence each."""
    name, lines = f"model.source.network ({type(network).__name__})", []
    if (activation := found.evaluation.activation) is not None:
        lines.append(
            f"{name} returns probabilities (a {activation} of logits): LEEP and the loss take them as such. If these "
            f"are logits, set model.source.output.class_path to riskft.{activation.capitalize()}Output and its "
            "init_args.applied to false."
        )
    main, *others = found.training.paths
    if others:
        also = ", ".join(f"'{path}'" for path in others)
        lines.append(f"{name} returns several outputs: '{main}' is the segmentation, {also} train too.")
    return lines
