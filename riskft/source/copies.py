"""Finds the weights of a network in a file with one or several copies, each under a prefix, or says why none fits."""

import difflib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from riskft.errors import InputError, first_few
from riskft.source.trace import trace

log = logging.getLogger(__name__)

# where training programs usually put the current weights, in order of preference
USUAL = ("state_dict", "model_state_dict", "network_weights", "model", "network", "net")

# torch.compile, activation checkpointing and FSDP prefix the names of the modules that they wrap with these
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
_DEPTH = 6


@dataclass(frozen=True)
class Copy:
    """The entries of a file whose names are a network's after a prefix."""

    name: str  #: Path of their dictionary plus the prefix, e.g. ``state_dict.net_ema``; may be empty.
    state: dict[str, Tensor]  #: All tensors of the dictionary, with the prefix removed.
    fitting: int  #: How many of the network's entries match in name and shape.
    named: int  #: How many match in name.


def states_in(content: Any) -> dict[str, dict[str, Tensor]]:
    """Returns every dictionary with tensors by its path (``""`` at the top level), the usual places first."""
    found = dict(_walk(content, (), set()))
    return dict(sorted(found.items(), key=lambda item: _rank(item[0])))


def _walk(content: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if isinstance(content, nn.Module):  # a pickled module, which only riskft convert loads
        content = content.state_dict()
    if not isinstance(content, Mapping) or id(content) in seen or len(path) > _DEPTH:
        return
    seen.add(id(content))
    if own := {str(key): value for key, value in content.items() if isinstance(value, Tensor)}:
        yield ".".join(path), own
    for key, value in content.items():
        yield from _walk(value, (*path, str(key)), seen)


def _rank(path: str) -> tuple[bool, list[int]]:
    """Returns a sort key: the usual places first, then the top level, then all others."""
    parts = path.split(".") if path else []
    usual = all(part in USUAL for part in parts)
    return not usual, [USUAL.index(part) for part in parts] + [len(USUAL)] if usual else []


def choose_copy(states: Mapping[str, Mapping[str, Tensor]], own: Mapping[str, Tensor], wanted: str | None) -> Copy:
    """Returns the copy of a network's weights to load, by its name if that is given.

    Otherwise this is the copy that matches most of the network's own entries in name and shape. Ties go to the usual
    places, then to the shortest prefix; the log names the other copies. Raises InputError if no copy has the wanted
    name.
    """
    copies = [copy for path, state in states.items() for copy in _copies(path, state, own)]
    if wanted is not None:
        return _named(copies, wanted)
    best = max(copies, key=lambda copy: (copy.fitting, copy.named))  # the first of equals
    others = [copy.name or "the top level" for copy in copies if copy is not best and copy.fitting == best.fitting > 0]
    if others:
        log.info(
            "The checkpoint holds the network's weights %s times. Taken: %s. Also there: %s. To take another, set "
            "model.source.weights to its name.",
            len(others) + 1,
            best.name or "the top level",
            ", ".join(others),
        )
    return best


def _named(copies: list[Copy], wanted: str) -> Copy:
    name = wanted.rstrip(".")
    # the full name, or its last part: net_ema for state_dict.net_ema
    found = [copy for copy in copies if copy.name == name] or [
        copy for copy in copies if copy.name.endswith(f".{name}") and copy.fitting
    ]
    if found:
        return max(found, key=lambda copy: (copy.fitting, copy.named))
    known = [copy.name or "'' (the top level)" for copy in copies if copy.fitting]
    raise InputError(
        f"model.source.weights is '{wanted}', but the checkpoint has no weights of the network under that name. It has "
        f"them under: {', '.join(known) or 'no name'}."
    )


def _copies(path: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[Copy]:
    """Returns one copy for each prefix under which the state has names of the network; at least one."""
    if not any(_WRAPPERS.search(key) for key in own):
        state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    named, fitting = Counter({"": 0}), Counter[str]()
    for key, value in state.items():
        for end in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
            if (mine := own.get(key[end:])) is not None:
                named[key[:end]] += 1
                fitting[key[:end]] += mine.shape == value.shape
    names = {prefix: ".".join(part for part in (path, prefix.rstrip(".")) if part) for prefix in sorted(named, key=len)}
    return [Copy(name, _without(prefix, state), fitting[prefix], named[prefix]) for prefix, name in names.items()]


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state with the prefix removed; a key that had it replaces another of the same name."""
    others = {key: value for key, value in state.items() if not key.startswith(prefix)}
    return others | {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


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
