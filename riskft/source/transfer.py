"""Copying the source network's weights to the target network, with an account of every parameter."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from riskft.files import csv_text, write_text

STATUSES = ("loaded", "adapted", "new", "unused")


@dataclass(frozen=True)
class AdaptationReport:
    """What became of each parameter and buffer.

    Attributes:
        rows: (name, shape, status) with a status of ``loaded`` (as it was), ``adapted`` (to another number of input
            channels, or a head started from the source's), ``new`` (random), ``unused`` (in the checkpoint only).
        fraction: Share of the network's parameters, by number of elements, that are loaded or adapted.
    """

    rows: tuple[tuple[str, str, str], ...]
    fraction: float

    def summary(self) -> str:
        """Returns one line: how many entries of each status, and the share of the parameters that is not new."""
        counts = Counter(status for _, _, status in self.rows)
        share = f"{100 * self.fraction:.1f} % of the parameters from the checkpoint"
        return ", ".join(f"{counts[status]} {status}" for status in STATUSES) + f" ({share})"

    def write(self, path: Path) -> None:
        """Writes the table as CSV, atomically."""
        write_text(path, csv_text(("parameter", "shape", "status"), self.rows))


def share_of(network: nn.Module, names: Sequence[str]) -> float:
    """Returns the share of the parameters' elements that the named ones have."""
    chosen = set(names)
    sizes = [(name in chosen, parameter.numel()) for name, parameter in network.named_parameters()]
    return sum(count for inside, count in sizes if inside) / max(sum(count for _, count in sizes), 1)


def transfer_backbone(
    target: nn.Module,
    source: nn.Module,
    head: Sequence[str],
    adapted: Sequence[str],
    head_status: str,
    unused: Sequence[str],
    missing: Sequence[str] = (),
) -> AdaptationReport:
    """Copies all but the head from the source to the target network, in place.

    Args:
        target: Network with the target's classes.
        source: Network with the source's classes and, already, the target's input channels.
        head: Names of the head's modules; left as they are.
        adapted: Names of first convolutions that were adapted to the number of channels.
        head_status: What the report says of the head: ``loaded``, ``adapted`` or ``new``.
        unused: Keys of the checkpoint that the source network has no use for.
        missing: Keys of the source network that the checkpoint did not fill; reported ``new``.
    """
    # by identity, for a module may be registered under several names (DynUNet's deep-supervision heads are)
    heads = {id(target.get_submodule(name)) for name in head}
    firsts = {id(target.get_submodule(name)) for name in adapted}
    state, absent = target.state_dict(), set(missing)
    rows: list[tuple[str, str, str]] = []
    for key, value in source.state_dict().items():
        owner = id(target.get_submodule(key.rpartition(".")[0]))
        if owner in heads:
            status = head_status
        else:
            state[key] = value
            status = "adapted" if owner in firsts and key.endswith("weight") else "loaded"
        rows.append((key, str(tuple(state[key].shape)), "new" if key in absent else status))
    target.load_state_dict(state)
    fraction = 1 - share_of(target, [key for key, _, status in rows if status == "new"])
    return AdaptationReport((*rows, *((key, "", "unused") for key in unused)), fraction)
