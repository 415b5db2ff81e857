"""The record of how a module's weights were made."""

from typing import Any, Protocol

from torch.optim import Optimizer

from riskft.data.datamodule import RiskDataModule
from riskft.losses.weighted import Loss
from riskft.run.record import Record
from riskft.source.source import Source
from riskft.source.transfer import AdaptationReport


class Recorded(Protocol):
    """The part of ``RiskModule`` that a record reads. A protocol, because ``RiskModule`` imports this file."""

    class_names: list[str]
    in_channels: int
    options: dict[str, Any]
    loss: Loss
    source: Source
    source_digest: str | None
    adaptation: AdaptationReport | None

    def trial_optimizer(self) -> Optimizer:
        """Returns an optimizer like the one that training uses."""


def record_of(module: Recorded, data: RiskDataModule | None, splits: tuple[str, ...] = ("train", "val")) -> Record:
    """Returns the record of a module and its data, prepared or not; None if it is trained on something else.

    The cases of ``splits`` are recorded. Files that no run has read yet are read for it; raises InputError if one
    cannot be.
    """
    adaptation, source = module.adaptation, module.source
    start = {"load": source.load, "checkpoint": source.checkpoint, "digest": module.source_digest}
    made = Record(
        class_names=list(module.class_names),
        in_channels=int(module.in_channels),
        start={**start, "fraction": adaptation.fraction if adaptation is not None else 0.0},
        parts={"loss": _path(module.loss), "optimizer": _path(module.trial_optimizer())},
        options=dict(module.options),
    )
    if data is not None:
        labels = data.labels
        made = Record(
            **{
                **vars(made),
                "classes": [[name, list(values)] for name, values in labels.classes.items()],
                "background": sorted(labels.background),
                "ignore": sorted(labels.ignore),
                "modalities": list(data.modalities),
                "preprocessing": data.preprocessing.describe(),
                "patch_size": list(data.patch_size),
                "cases": {split: data.case_keys(split) for split in splits},
            }
        )
    return Record(**made.plain())


def _path(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
