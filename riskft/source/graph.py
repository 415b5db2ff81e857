"""The graph that autograd keeps of a forward pass: which layers and which activation gave a tensor."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor

from riskft.compat import softmax_axis
from riskft.source.reading import Activation

# operations that leave a probability what it is: those of the shape, the type and the memory, and interpolation
KEEPS = (
    *("View", "Reshape", "Slice", "Select", "Permute", "Transpose", "Clone", "ToCopy", "Unbind", "Unsqueeze"),
    *("Squeeze", "Contiguous", "Alias", "UnsafeView", "Upsample"),
)


def ancestors(tensors: Sequence[Tensor], stops: Collection[Any] = ()) -> Iterator[Any]:
    """Walks the graph of autograd upwards from tensors, not past the stops."""
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
    """Returns the layer that gives an output by itself, whatever one-to-one operations follow; else None."""
    node = output.grad_fn
    while node is not None and node not in nodes:
        above = [other for other, _ in node.next_functions if other is not None]
        node = above[0] if len(above) == 1 else None
    return None if node is None else nodes[node]


def last_activation(output: Tensor) -> Activation | None:
    """Returns the activation over the channels that ends the computation of an output, if there is one."""
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
