"""Finds the logits in what a segmentation network returns, and the layers and activation that gave a tensor."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from riskft.compat import softmax_axis
from riskft.errors import InputError

Activation = Literal["softmax", "sigmoid"]

# usual keys of the segmentation in networks with several outputs, in order of preference
_KEYS = ("out", "logits", "seg", "segmentation", "pred", "prediction", "main", "output")

# operations that turn probabilities into probabilities: changes of shape, type or memory, and interpolation
KEEPS = (
    *("View", "Reshape", "Slice", "Select", "Permute", "Transpose", "Clone", "ToCopy", "Unbind", "Unsqueeze"),
    *("Squeeze", "Contiguous", "Alias", "UnsafeView", "Upsample"),
)


def tensors_in(result: object) -> dict[str, Tensor]:
    """Returns the tensors in a result (nested sequences, dictionaries, data classes) by path, e.g. ``heads.1``."""
    return dict(_walk(result, ()))


def _walk(result: object, path: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(result, Tensor):
        if result.ndim == 6:  # MONAI's DynUNet stacks deep-supervision outputs on a new second axis
            yield from _walk(result.unbind(1), path)
        else:
            yield ".".join(path), result
        return
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping)):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        items = list(result.items())
    elif isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        items = list(enumerate(result))
    else:
        return
    for key, value in items:
        yield from _walk(value, (*path, str(key)))


def segmentations(result: object) -> dict[str, Tensor]:
    """Returns the outputs that can be a segmentation's logits by their path, the likeliest first.

    These are the floating-point tensors (B, K, X, Y, Z), sorted by number of voxels (most first), then by usual key,
    then in the network's order. Losses and latent vectors are left out, and so are tensors whose number of channels
    differs from the first's, for example an auto-encoder's reconstruction. Raises InputError if there is none.
    """
    found = {path: tensor for path, tensor in tensors_in(result).items() if tensor.ndim == 5}
    floating = {path: tensor for path, tensor in found.items() if tensor.is_floating_point()}
    if not floating:
        raise InputError(
            f"The network returns {_described(result)}, expected logits: a floating-point tensor (batch, classes, X, "
            "Y, Z), by itself or in a list, tuple or dictionary."
        )
    ordered = sorted(floating, key=lambda path: (-floating[path].shape[2:].numel(), _preference(path)))
    channels = floating[ordered[0]].shape[1]
    return {path: floating[path] for path in ordered if floating[path].shape[1] == channels}


def _preference(path: str) -> int:
    keys = path.lower().split(".")
    return min((_KEYS.index(key) for key in keys if key in _KEYS), default=len(_KEYS))


def _described(result: object) -> str:
    tensors = tensors_in(result)
    kind = type(result).__name__
    if not tensors:
        return f"{kind} without a tensor"
    shown = ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in list(tensors.values())[:3]
    )
    return f"{kind} of {shown}"


def outputs_of(result: object) -> list[Tensor]:
    """Returns a network's outputs, the likeliest first (several with deep supervision); see ``segmentations``."""
    return list(segmentations(result).values())


@dataclass(frozen=True)
class Reading:
    """How a network's result is read in one mode."""

    #: Paths of the outputs in the result, the segmentation first, then those that deep supervision trains.
    paths: tuple[str, ...] = ("",)
    #: The activation that the network applies to the logits; None if it returns logits.
    activation: Activation | None = None
    unused: tuple[str, ...] = ()  #: Names of the parameters that these outputs do not depend on.

    def __call__(self, result: object) -> list[Tensor]:
        """Returns the logits, the segmentation's first; raises InputError if nothing can be a segmentation."""
        found = tensors_in(result)
        if all(path in found for path in self.paths):
            outputs = [found[path] for path in self.paths]
        else:
            outputs = outputs_of(result)
        return [logits_of(output, self.activation) for output in outputs]


@dataclass(frozen=True)
class Readings:
    """How a network's result is read in training and in evaluation mode, which may differ."""

    training: Reading = Reading()
    evaluation: Reading = Reading()

    def __call__(self, network: nn.Module, image: Tensor) -> list[Tensor]:
        """Runs the network on an image and returns its logits (B, K, X, Y, Z), the segmentation's first."""
        return (self.training if network.training else self.evaluation)(network(image))


def logits_of(output: Tensor, activation: Activation | None) -> Tensor:
    """Returns logits that give the same probabilities, (B, K, *spatial), under an activation that was already applied.

    Those of a softmax are log p, those of a sigmoid log p - log (1 - p), all finite. In float32 a sigmoid is 1 from a
    logit of about 16 upwards.
    """
    if activation is None:
        return output
    values = output.float()
    smallest = torch.finfo(torch.float32).tiny
    if activation == "softmax":
        return values.clamp_min(smallest).log()
    return values.clamp_min(smallest).log() - (1 - values).clamp_min(torch.finfo(torch.float32).eps / 4).log()


def ancestors(tensors: Sequence[Tensor], stops: Collection[Any] = ()) -> Iterator[Any]:
    """Yields the nodes of the autograd graph from the tensors back to the inputs, up to but without the stops."""
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node in seen or node in stops:
            continue
        seen.add(node)
        yield node
        waiting += [above for above, _ in node.next_functions if above is not None]


def origin(output: Tensor, nodes: dict[Any, str]) -> str | None:
    """Returns the single layer that an output comes from, through operations of one input; None if there is none."""
    node = output.grad_fn
    while node is not None and node not in nodes:
        above = [other for other, _ in node.next_functions if other is not None]
        node = above[0] if len(above) == 1 else None
    return None if node is None else nodes[node]


def last_activation(output: Tensor) -> Activation | None:
    """Returns the activation over the channels that computes the output last, or None."""
    node: Any = output.grad_fn
    while node is not None:
        kind = node.name()
        if kind.startswith("SoftmaxBackward"):
            return "softmax" if softmax_axis(node, output.ndim) == 1 else None
        if kind.startswith("SigmoidBackward"):
            return "sigmoid"
        above = [other for other, _ in node.next_functions if other is not None]
        node = above[0] if len(above) == 1 and kind.startswith((*KEEPS, "Clamp")) else None
    return None
