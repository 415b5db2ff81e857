"""Where fine-tuning starts: the target network's weights from the source's."""

import logging
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from riskft.errors import InputError
from riskft.source.head import copy_head, head_rows, mixed_head
from riskft.source.network import SourceNetwork
from riskft.source.output import SoftmaxOutput
from riskft.source.source import Source
from riskft.source.transfer import AdaptationReport, transfer_backbone

log = logging.getLogger(__name__)

HeadInit = Literal["auto", "leep", "copy", "random"]


def start_network(
    network: nn.Module,
    head: Sequence[str],
    source: SourceNetwork,
    joint: Tensor | None,
    class_names: Sequence[str],
    how: HeadInit,
) -> AdaptationReport:
    """Sets a target network's weights from the source, in place.

    Args:
        network: With |Y| output channels.
        head: Names of the modules that make up its head.
        source: The source network.
        joint: P(y, z) from phase 1, (Y, Z) of any scale, or None where there was none.
        class_names: The target's, background first.
        how: How the head starts, see ``RiskModule``.

    Raises:
        InputError: If the head is to start through P(z|y) and there is no joint, or it cannot be copied.
    """
    softmax = isinstance(source.output, SoftmaxOutput)
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
    )
    if how == "leep" and joint is not None:
        rows = head_rows(joint, source.output.activity(source.channels))
        mixed_head(network, source.network, head, rows, source.last if len(source.last) > 1 else ())
    elif how == "copy":
        copy_head(network, source.network, head)
    log.info("Target network: %s; head: %s", report.summary(), how)
    return report


def say_not_loaded(source: Source) -> None:
    """Says that a checkpoint which is given is not used, where training starts from scratch."""
    if source.checkpoint is not None:
        log.info(
            "The weights of %s are not loaded, because model.source.load is none: training starts from scratch.",
            source.checkpoint,
        )
