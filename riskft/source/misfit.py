"""Explains in a few lines why a checkpoint does not fit a network."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from riskft.errors import InputError, first_few
from riskft.source.trace import trace

_OPTIONS = "Give the network the class and options that it was trained with."


def misfit(
    network: nn.Module,
    path: Path,
    state: Mapping[str, Tensor],
    wrong: Sequence[str],
    size: Sequence[int],
    share: tuple[float, float] | None,
) -> InputError:
    """Returns the error for a checkpoint that does not fit: a title and at most three lines.

    The file lacks the ``wrong`` keys of the network, at least one, or has them in another shape. ``share`` is the share
    of the parameters' elements that fits and the share required; None if all must fit.
    """
    own = network.state_dict()
    name = f"model.source.network ({type(network).__name__})"
    if numbers := _other_numbers(network, state, wrong, size):
        return InputError(f"{path}: fits {name} except for the numbers of channels:", numbers)
    if share is None:
        title = f"{path}: does not fit {name}: {len(wrong)} of {len(own)} entries, and the risk map needs all."
    else:
        title = (
            f"{path}: does not fit {name}: it fills {100 * share[0]:.0f} % of the parameters, and "
            f"model.source.min_loaded is {share[1]}."
        )
    shown = first_few(wrong, 2, lambda key: _describe(key, own[key], state))
    return InputError(f"{title} {_OPTIONS}", shown)


def _describe(key: str, expected: Tensor, state: Mapping[str, Tensor]) -> str:
    if key in state:
        found = tuple(state[key].shape)
        return f"'{key}' has shape {found} in the file, the network expects {tuple(expected.shape)}"
    near = difflib.get_close_matches(key, list(state), n=1, cutoff=0.4)
    return f"'{key}' is missing" + (f"; the nearest in the file is '{near[0]}'" if near else "")


def _other_numbers(
    network: nn.Module, state: Mapping[str, Tensor], wrong: Sequence[str], size: Sequence[int]
) -> list[str]:
    """Returns what to set if the file differs only in the number of classes or input channels, else an empty list."""
    own = network.state_dict()
    if any(key not in state or state[key].ndim != own[key].ndim for key in wrong):
        return []
    found = trace(network, size)
    inputs = {f"{name}.weight" for name in found.first}
    changes: dict[str, set[tuple[int, int]]] = {"input": set(), "output": set()}
    where: dict[str, str] = {}
    for key in wrong:
        before, after = own[key].shape, state[key].shape
        side = "input" if key in inputs and before[0] == after[0] else "output"
        changes[side] |= {pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]}
        where.setdefault(side, key)
    if any(len(pairs) > 1 for pairs in changes.values()):
        return []  # widths differ too: another network
    lines = []
    for old, new in changes["output"]:
        if old != found.channels[0]:
            return []  # inner channels, not the classes
        lines.append(
            f"'{where['output']}': the file's head has {new} output channels, the network {old}: set out_channels / "
            f"num_classes to {new}"
        )
    for old, new in changes["input"]:
        lines.append(
            f"'{where['input']}': the file takes {new} input channels, the network {old}: set in_channels to {new}"
        )
    return lines
