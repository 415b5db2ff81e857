"""Traces a network on a window; if it does not run, explains why and finds a window on which it does."""

from collections.abc import Iterator, Sequence

from torch import nn

from riskft.errors import InputError, first_line
from riskft.source.forward import FailedRunError, Trace, run
from riskft.source.resize import CONVOLUTIONS

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
