"""Initialises the target network from the source network and reports the origin of every parameter."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from riskft.errors import InputError
from riskft.files import csv_text, write_text
from riskft.source.head import copy_head, head_rows, mixed_head
from riskft.source.network import SourceNetwork
from riskft.source.output import SoftmaxOutput

log = logging.getLogger(__name__)

HeadInit = Literal["auto", "leep", "copy", "random"]
STATUSES = ("loaded", "adapted", "new", "unused")


@dataclass(frozen=True)
class AdaptationReport:
    """What happened to each parameter and buffer."""

    #: (name, shape, status). The status is ``loaded`` (unchanged), ``adapted`` (to other input channels, or a head
    #: initialised from the source's), ``new`` (random) or ``unused`` (only in the checkpoint).
    rows: tuple[tuple[str, str, str], ...]
    fraction: float  #: Share of the network's parameters, by number of elements, that are loaded or adapted.

    def summary(self) -> str:
        """Returns one line with the number of entries of each status and the share of parameters that is not new."""
        counts = Counter(status for _, _, status in self.rows)
        share = f"{100 * self.fraction:.1f} % of the parameters from the checkpoint"
        return ", ".join(f"{counts[status]} {status}" for status in STATUSES) + f" ({share})"

    def write(self, path: Path) -> None:
        """Writes the table as CSV, atomically."""
        write_text(path, csv_text(("parameter", "shape", "status"), self.rows))


def start_network(
    network: nn.Module,
    head: Sequence[str],
    source: SourceNetwork,
    joint: Tensor | None,
    class_names: Sequence[str],
    how: HeadInit,
    fresh: Collection[str] = (),
) -> AdaptationReport:
    """Sets a target network's weights from the source, in place; for ``how``, see ``head_init`` of ``RiskModule``.

    The joint from phase 1 is P(y, z), (Y, Z), at any scale, or None. The ``fresh`` keys keep the target's values;
    if the head's are among them, ``auto`` is a random head. Raises InputError if ``how`` is ``leep`` and there is no
    joint, or the head cannot be copied.
    """
    softmax = isinstance(source.output, SoftmaxOutput)
    if how == "auto" and any(key.startswith(f"{name}.") for name in head for key in fresh):
        how = "random"
    if how == "auto":
        how = "copy" if softmax and source.class_names == tuple(class_names) else "leep"
    if how == "leep" and joint is None:
        raise InputError(
            f"model.head_init is '{how}', which needs phase 1: add riskft.RiskMapCallback to trainer.callbacks (with "
            "attach: false for plain fine-tuning), or set head_init to 'random'."
        )
    if how == "copy" and not softmax:
        raise InputError("model.head_init is 'copy', but the source's head is a sigmoid one: use 'leep' or 'random'.")
    report = transfer_backbone(
        network,
        source.network,
        head,
        adapted=source.adapted,
        head_status={"random": "new", "leep": "adapted"}.get(how, "loaded"),
        unused=source.unused,
        missing=source.missing,
        fresh=fresh,
    )
    if how == "leep" and joint is not None:
        rows = head_rows(joint, source.output.activity(source.channels))
        mixed_head(network, source.network, head, rows, source.last if len(source.last) > 1 else ())
    elif how == "copy":
        copy_head(network, source.network, head)
    log.info("Target network: %s; head: %s", report.summary(), how)
    return report


def share_of(network: nn.Module, names: Sequence[str]) -> float:
    """Returns the share of the network's parameters, by number of elements, that have these names."""
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
    fresh: Collection[str] = (),
) -> AdaptationReport:
    """Copies everything but the head's modules from the source to the target network, in place.

    The source has the target's input channels; the first convolutions in ``adapted`` were adapted to these or negated.
    The report gives the head ``head_status`` (``loaded``, ``adapted`` or ``new``), the checkpoint's ``unused`` keys as
    such, and the keys that the checkpoint did not fill (``missing``) or that are not copied (``fresh``) as ``new``.
    """
    # by identity because a module may be registered under several names (DynUNet's deep-supervision heads are)
    heads = {id(target.get_submodule(name)) for name in head}
    firsts = {id(target.get_submodule(name)) for name in adapted}
    state, absent = target.state_dict(), set(missing)
    rows: list[tuple[str, str, str]] = []
    for key, value in source.state_dict().items():
        owner = id(target.get_submodule(key.rpartition(".")[0]))
        if owner in heads:
            status = head_status
        elif key in fresh:
            status = "new"
        else:
            state[key] = value
            status = "adapted" if owner in firsts and key.endswith("weight") else "loaded"
        rows.append((key, str(tuple(state[key].shape)), "new" if key in absent else status))
    target.load_state_dict(state)
    fraction = 1 - share_of(target, [key for key, _, status in rows if status == "new"])
    return AdaptationReport((*rows, *((key, "", "unused") for key in unused)), fraction)
