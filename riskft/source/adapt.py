"""Loading a checkpoint into a network, with an account of every parameter."""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from riskft.errors import InputError
from riskft.files import write_text
from riskft.source.checkpoint import Checkpoint, aligned

STATUSES = ("loaded", "adapted", "new", "unused")


@dataclass(frozen=True)
class AdaptationReport:
    """What became of each parameter and buffer.

    Attributes:
        rows: (name, shape, status) with a status of ``loaded`` (as it was), ``adapted`` (to another number of input
            channels, or a head started from the source's), ``new`` (random), ``unused`` (in the checkpoint only).
    """

    rows: tuple[tuple[str, str, str], ...]

    def summary(self) -> str:
        """Returns one line: how many of each status."""
        counts = Counter(status for _, _, status in self.rows)
        return ", ".join(f"{counts[status]} {status}" for status in STATUSES)

    def write(self, path: Path) -> None:
        """Writes the table as CSV, atomically."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([("parameter", "shape", "status"), *self.rows])
        write_text(path, buffer.getvalue())


def load_source(network: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Loads every parameter of the source network, in place; returns the checkpoint's unused keys.

    The risk map is only right if the source network is whole, its own head included, so nothing may be missing.

    Raises:
        InputError: Naming missing keys (and the nearest ones in the file) and differing shapes.
    """
    own = network.state_dict()
    state = aligned(checkpoint.state, own.keys())
    wrong = [key for key, value in own.items() if key not in state or state[key].shape != value.shape]
    if wrong:
        shown = [_describe(key, own[key], state) for key in wrong[:5]]
        shown += [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise InputError(
            f"{checkpoint.path}: does not fit model.source.network ({type(network).__name__}): {len(wrong)} of "
            f"{len(own)} entries. Give the network the options that it was trained with.",
            shown,
        )
    network.load_state_dict({key: state[key] for key in own})
    return sorted(set(state) - set(own))


def _describe(key: str, expected: Tensor, state: Mapping[str, Tensor]) -> str:
    if key in state:
        found = tuple(state[key].shape)
        return f"'{key}' has shape {found} in the file, the network expects {tuple(expected.shape)}"
    near = difflib.get_close_matches(key, list(state), n=1)
    return f"'{key}' is missing" + (f"; the nearest in the file is '{near[0]}'" if near else "")


def transfer_backbone(
    target: nn.Module,
    source: nn.Module,
    head: Sequence[str],
    adapted: Sequence[str],
    head_status: str,
    unused: Sequence[str],
) -> AdaptationReport:
    """Copies all but the head from the source to the target network, in place.

    Args:
        target: Network with the target's classes.
        source: Network with the source's classes and, already, the target's input channels.
        head: Names of the head's modules; left as they are.
        adapted: Names of first convolutions that were adapted to the number of channels.
        head_status: What the report says of the head: ``adapted`` or ``new``.
        unused: Keys of the checkpoint that the source network has no use for.
    """
    # by identity, for a module may be registered under several names (DynUNet's deep-supervision heads are)
    heads = {id(target.get_submodule(name)) for name in head}
    firsts = {id(target.get_submodule(name)) for name in adapted}
    state = target.state_dict()
    rows: list[tuple[str, str, str]] = []
    for key, value in source.state_dict().items():
        owner = id(target.get_submodule(key.rpartition(".")[0]))
        if owner in heads:
            status = head_status
        else:
            state[key] = value
            status = "adapted" if owner in firsts and key.endswith("weight") else "loaded"
        rows.append((key, str(tuple(state[key].shape)), status))
    target.load_state_dict(state)
    return AdaptationReport((*rows, *((key, "", "unused") for key in unused)))
