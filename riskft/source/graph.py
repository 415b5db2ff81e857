"""Finds in the autograd graph which layers and which activation gave a tensor."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor

from riskft.compat import softmax_axis
from riskft.source.reading import Activation

# operations that turn probabilities into probabilities: changes of shape, type or memory, and interpolation
KEEPS = (
    *("View", "Reshape", "Slice", "Select", "Permute", "Transpose", "Clone", "ToCopy", "Unbind", "Unsqueeze"),
    *("Squeeze", "Contiguous", "Alias", "UnsafeView", "Upsample"),
)


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
