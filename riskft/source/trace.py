"""Traces a network on a window: which layers take the input, which give the outputs, and in what order they run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from riskft.errors import InputError, first_line
from riskft.source.parametrizations import copied
from riskft.source.reading import KEEPS, Reading, ancestors, last_activation, origin, segmentations
from riskft.source.resize import CONVOLUTIONS, LAYERS, SIZED, in_channels


@dataclass
class Trace:
    """What one forward pass shows about a network."""

    in_channels: int  #: Number of channels of the network's input.
    #: Names of the layers that take the network's input and nothing else.
    first: list[str] = field(default_factory=list)
    #: Those of ``first`` that take the input after a calculation (a normalisation), not just padding.
    altered: list[str] = field(default_factory=list)
    #: Names of the layers that take the input together with features of earlier layers.
    mixed: list[str] = field(default_factory=list)
    #: Names of the convolutions and linear layers in order of their last execution, each once.
    executed: list[str] = field(default_factory=list)
    #: ``executed`` plus the normalisations and activations that have channels.
    sized: list[str] = field(default_factory=list)
    #: Number of channels of each output (several with deep supervision).
    channels: list[int] = field(default_factory=list)
    #: Names of the layers that give the outputs, one per output, or empty.
    last: list[str] = field(default_factory=list)
    reading: Reading = field(default_factory=Reading)  #: How the network's result is read in the mode that it ran in.
    unused: list[str] = field(default_factory=list)  #: Names of the parameters that no output depends on.
    differentiable: bool = True  #: Whether the first output has a gradient.


class FailedRunError(InputError):
    """A network that fails on an example input with the exception ``cause``, after ``reached`` layers."""

    def __init__(self, cause: Exception, reached: int) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.cause, self.reached = cause, reached


# `test` and `predict` load the source in inference mode, where its copies would have no gradient
@torch.inference_mode(False)
def run(network: nn.Module, size: Sequence[int], training: bool = True) -> Trace:
    """Runs a copy of the network on zeros of shape (2, C, *size) and records the layers that run.

    In training mode a network with deep supervision returns all of its outputs; batch normalisation needs two samples.
    C is the first of the convolutions' input channels, in order of registration, with which the network runs. Raises
    FailedRunError (of the run that got through the most layers) if it runs with none of them, and InputError if it
    cannot be copied, or its result is not a segmentation of the input.
    """
    if any(is_lazy(value) for value in network.parameters()):
        raise InputError(
            f"{type(network).__name__} has lazy layers, which have no size before their first use. Build it with the "
            "layers of the same names without Lazy."
        )
    # the meta device takes almost no time or memory, whatever the window
    empty = copied(network).to("meta")
    failures: list[FailedRunError] = []
    for channels in _possible_channels(network):
        try:
            return _run(empty, channels, size, training)
        except FailedRunError as failure:
            failures.append(failure)
            if "meta" in str(failure):  # it reads values, which the meta device does not have
                try:
                    return _run(copied(network), channels, size, training)
                except FailedRunError as real:
                    failures[-1] = real
    raise max(failures, key=lambda failure: failure.reached)  # the first if equal


def _possible_channels(network: nn.Module) -> list[int]:
    convolutions = [in_channels(module) for module in network.modules() if isinstance(module, CONVOLUTIONS)]
    if not any(isinstance(module, LAYERS) for module in network.modules()):
        raise InputError(f"{type(network).__name__} has no convolution, expected a convolutional segmentation network.")
    own = getattr(network, "in_channels", None)
    return list(dict.fromkeys([*convolutions, *([own] if isinstance(own, int) else []), 1, 2, 3, 4]))


def _run(network: nn.Module, channels: int, size: Sequence[int], training: bool) -> Trace:
    network.train(training)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    kind = next(network.parameters())
    found = Trace(channels)
    nodes: dict[Any, str] = {}  # the layers' results in the autograd graph
    inputs: list[tuple[str, Tensor]] = []
    with torch.enable_grad():
        leaf = torch.zeros((2, channels, *size), device=kind.device, dtype=kind.dtype, requires_grad=True)
        example = leaf * 1  # the network may change it in place; a leaf must not be

        def record(name: str, module: nn.Module) -> Any:
            def hook(_: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
                found.sized.append(name)
                if isinstance(module, LAYERS):
                    found.executed.append(name)
                    if arguments and isinstance(arguments[0], Tensor):
                        inputs.append((name, arguments[0]))
                        _sort(name, arguments[0], example, set(nodes), found)
                    if isinstance(result, Tensor) and result.grad_fn is not None:
                        nodes[result.grad_fn] = name

            return hook

        handles = [
            module.register_forward_hook(record(name, module))
            for name, module in network.named_modules()
            if isinstance(module, SIZED)
        ]
        try:
            result = network(example)
        except Exception as error:  # the network's code may raise anything
            raise FailedRunError(error, len(set(found.executed))) from error
        finally:
            for handle in handles:
                handle.remove()
    if not found.first and inputs and in_channels(network.get_submodule(inputs[0][0])) == channels:
        found.first = [inputs[0][0]]  # its input was computed without a gradient
    for part in (found.first, found.altered, found.mixed):  # layers may run several times
        part[:] = dict.fromkeys(part)
    for part in (found.executed, found.sized):
        part[:] = reversed(dict.fromkeys(reversed(part)))
    _read(network, result, size, nodes, found)
    return found


def _sort(name: str, value: Tensor, example: Tensor, layers: set[Any], found: Trace) -> None:
    """Records a layer that takes the example, directly or after operations that are not layers."""
    ends = {example.grad_fn, *layers}
    between = list(ancestors([value], ends))
    above = {value.grad_fn} | {other for node in between for other, _ in node.next_functions}
    if example.grad_fn not in above:
        return
    if above & layers:
        found.mixed.append(name)
        return
    found.first.append(name)
    kinds = [node.name() for node in between if not hasattr(node, "variable")]
    if not all(kind.startswith((*KEEPS, "ConstantPad")) for kind in kinds):
        found.altered.append(name)


def _read(network: nn.Module, result: object, size: Sequence[int], nodes: dict[Any, str], found: Trace) -> None:
    outputs = segmentations(result)
    first = next(iter(outputs.values()))
    if tuple(first.shape[2:]) != tuple(size):
        window, got = (" x ".join(map(str, edges)) for edges in (size, first.shape[2:]))
        raise InputError(
            f"{type(network).__name__} returns {got} voxels for a window of {window}, expected as many. Pad its "
            "convolutions, or interpolate its output to the size of its input."
        )
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    used = {
        path: {id(node.variable) for node in ancestors([output]) if hasattr(node, "variable")}
        for path, output in outputs.items()
    }
    sizes = {id(parameter): parameter.numel() for parameter in network.parameters()}
    # among outputs of the same shape, the one that depends on the most parameters; the first if equal
    equal = [path for path, output in outputs.items() if output.shape == first.shape]
    main = max(equal, key=lambda path: sum(sizes.get(key, 0) for key in used[path]))
    paths = (main, *(path for path in outputs if path != main))
    reached = set().union(*used.values())
    found.unused = [name for key, name in names.items() if key not in reached]
    found.differentiable = outputs[main].requires_grad
    found.channels = [outputs[path].shape[1] for path in paths]
    origins = [origin(outputs[path], nodes) for path in paths]
    found.last = [name for name in origins if name is not None]
    if len(found.last) < len(origins):
        found.last = []
    found.reading = Reading(paths, last_activation(outputs[main]), tuple(found.unused))


_WHERE = "The window is model.inferer.init_args.roi_size, which the shipped configs take from data.patch_size."


def trace(network: nn.Module, size: Sequence[int], training: bool = True) -> Trace:
    """Returns what a forward pass of a copy on a window shows; raises InputError with the likely reason if it fails."""
    try:
        return run(network, size, training)
    except FailedRunError as failure:
        raise _does_not_run(network, size, failure) from failure


def _does_not_run(network: nn.Module, size: Sequence[int], failure: FailedRunError) -> InputError:
    """Returns the error for a network that failed on a window, with a window on which it runs if there is one."""
    kind, window, reason = type(network).__name__, _text(size), first_line(failure.cause)
    dimensions = {len(module.kernel_size) for module in network.modules() if isinstance(module, CONVOLUTIONS)}
    if dimensions and 3 not in dimensions:
        return InputError(
            f"{kind} is a {max(dimensions)}-D network (its convolutions are Conv{max(dimensions)}d), and riskft needs "
            "3-D ones: it works on volumes (batch, channels, X, Y, Z).",
            ["Build it for three dimensions if possible (MONAI: spatial_dims: 3), or choose another network."],
        )
    title = f"{kind} does not run on a window of {window} voxels ({reason})."
    for other in _other_sizes(size):
        try:
            run(network, other)
        except InputError:
            continue
        return InputError(
            title,
            [f"It runs on {_text(other)}: set data.patch_size to that, or to another size that suits it. {_WHERE}"],
        )
    return InputError(
        title,
        [
            f"It does not run on larger windows either. Is it a 3-D segmentation network that takes one argument, "
            f"images (batch, channels, X, Y, Z)? {_WHERE}"
        ],
    )


def _text(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))


def _other_sizes(size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields the next larger windows divisible by 2, 4, 8, ..., then cubes: some networks take one size only."""
    seen = {tuple(size)}
    rounded = [tuple(-(-edge // step) * step for edge in size) for step in (2, 4, 8, 16, 32, 64, 128)]
    cubes = [(edge,) * 3 for edge in (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)]
    for other in [*rounded, *cubes]:
        if other not in seen:
            seen.add(other)
            yield other
