"""The results of phase 1 on the training cases."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from riskft.errors import InputError


@dataclass(frozen=True)
class RiskSummary:
    """The results of phase 1 on the training cases."""

    joint: Tensor  #: (Y, Z) float64, unnormalised.
    leep: float  #: Mean log EEP, nats.
    label_entropy: float  #: H(Y), nats; minus the LEEP of an uninformative source.
    knowledge: float  #: 1 + LEEP / H(Y) in [0, 1].
    class_voxels: list[int]  #: Voxels of each target class.
    class_hardness: list[float]  #: Mean hardness of each target class, nats (0 for a class without voxels).
    class_weight: list[float]  #: Mean weight of each target class (0 for a class without voxels).
    weight_edges: list[float]  #: Edges of the histogram of weights.
    weight_counts: list[int]  #: Voxels between the edges.

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**vars(self), "joint": self.joint.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RiskSummary":
        """Restores the result of ``to_json``; other keys are ignored.

        Raises:
            InputError: If a key is missing, or the joint is not a table of numbers.
        """
        if missing := [key for key in cls.__dataclass_fields__ if key not in values]:
            raise InputError(f"The summary of the risk maps has no {', '.join(missing)}. Make the maps again.")
        own = {key: values[key] for key in cls.__dataclass_fields__}
        try:
            joint = torch.tensor(values["joint"], dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"The summary's joint is not a table of numbers ({error}): make the maps again."
            ) from error
        return cls(**{**own, "joint": joint})
