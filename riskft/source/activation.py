"""Detects whether a network returns logits or probabilities, from its computation graph or from its values."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from riskft.errors import InputError
from riskft.source.output import SourceOutput
from riskft.source.reading import Readings
from riskft.source.trace import trace

log = logging.getLogger(__name__)

_OPTION = (
    "If it applies the {activation} itself, set model.source.output.class_path to riskft.{name} and "
    "model.source.output.init_args.applied to true; if these are logits, set it to false."
)


def readings(network: nn.Module, size: Sequence[int], output: SourceOutput | None) -> Readings:
    """Returns how to read a network's result on a window, in training and in evaluation mode.

    Recognises a network that ends in a softmax or sigmoid; the ``applied`` of ``output`` overrides what is found.
    ``ProbabilityCheck`` finds other probabilities at run time. Raises InputError if the network does not run, or its
    output has no gradient.
    """
    train = trace(network, size)
    if not train.differentiable:
        raise InputError(
            f"The output of {type(network).__name__} has no gradient (it may be an argmax, one-hot coded, or computed "
            "under no_grad). riskft needs logits or probabilities; have the network return these."
        )
    found = Readings(train.reading, trace(network, size, training=False).reading)
    if output is None or output.applied is None or (output.applied and found.evaluation.activation is not None):
        return found  # the activation may be absent in training mode
    activation = output.activation if output.applied else None
    return Readings(*(replace(each, activation=activation) for each in (found.training, found.evaluation)))


def freeze_unused(network: nn.Module, found: Readings) -> None:
    """Freezes the parameters that no trained output depends on; with DDP each step would wait for their gradients."""
    for name in found.training.unused:
        network.get_parameter(name).requires_grad_(False)


def describe(network: nn.Module, found: Readings) -> list[str]:
    """Returns what the user should know about how the network is read, one sentence per entry."""
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


class ProbabilityCheck:
    """Checks a network's outputs, if ``asked`` to, until it is clear whether they are probabilities.

    Values in 0..1 that sum to 1 over the channels throughout a patch are not logits. Other values in 0..1 come from a
    sigmoid if they approach both ends within a volume; the logits of an untrained network can also stay in 0..1.
    """

    def __init__(self, name: str, asked: bool = True) -> None:
        self.name = name
        self._patch_open = self._volume_open = asked
        self._lowest, self._highest, self._channels = math.inf, -math.inf, 0

    def patch(self, outputs: Tensor) -> None:
        """Checks patches, (B, K, *spatial), up to the first that varies; raises InputError if they sum to 1."""
        if not self._patch_open or outputs.shape[1] < 2:
            return
        values = outputs.detach().float()
        tolerance = 1e-3 if outputs.dtype in (torch.float32, torch.float64) else 2e-2
        if not _within(values, tolerance) or float((values.sum(1) - 1).abs().max()) > tolerance:
            self._patch_open = False
        elif float((values.amax((0, *range(2, values.ndim))) - values.amin((0, *range(2, values.ndim)))).max()) > 1e-2:
            raise InputError(
                f"{self.name} returns probabilities: all outputs are within 0..1 and sum to 1 over the channels, and a "
                "second softmax would make LEEP and the loss wrong.",
                [_OPTION.format(activation="softmax", name="SoftmaxOutput")],
            )

    def part(self, outputs: Tensor) -> None:
        """Takes note of a part of the first volume, (B, K, *spatial)."""
        if self._volume_open:
            lowest, highest = (float(value) for value in outputs.aminmax())
            self._volume_open = lowest >= -1e-6 and highest <= 1 + 1e-6
            self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
            self._channels = outputs.shape[1]

    def volume(self) -> None:
        """Checks the first volume, seen by ``part``; raises InputError if its values are in 0..1 and near both ends."""
        if not self._volume_open:
            return
        self._volume_open = False
        lowest, highest = self._lowest, self._highest
        option = _OPTION.format(activation="sigmoid", name="SigmoidOutput")
        if self._channels > 1:
            option += " If it masks or pads what a softmax gives, the class is riskft.SoftmaxOutput."
        if lowest < 0.05 and highest > 0.95:
            raise InputError(
                f"{self.name} seems to return probabilities: all outputs of a volume are within 0..1, from "
                f"{lowest:.3g} to {highest:.3g}, and a second sigmoid or softmax would make LEEP and the loss wrong.",
                [option],
            )
        log.warning(
            "%s returns only values from %.3g to %.3g. riskft treats them as logits. Are they probabilities? %s",
            self.name,
            lowest,
            highest,
            option,
        )


def probability_check(network: nn.Module, read: Readings, output: SourceOutput | None) -> ProbabilityCheck:
    """Returns the check of a network; it does nothing if the kind of output is known."""
    known = read.evaluation.activation is not None or (output is not None and output.applied is not None)
    return ProbabilityCheck(f"model.source.network ({type(network).__name__})", asked=not known)


def _within(values: Tensor, tolerance: float) -> bool:
    return bool((values >= -tolerance).all() and (values <= 1 + tolerance).all())
