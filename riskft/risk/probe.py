"""What the source's output says of the target's classes beyond probabilities: a linear probe on log-probabilities.

P(y|z) knows the source by the mass of its probabilities alone. A source that calls nearly everything background under
the target's contrast then knows nothing, although what little it gives the other classes may still tell the target's
classes apart. A multinomial logistic regression on the log-probabilities finds that too::

    q_i(y) = softmax_y( b_y + sum_z A_yz r_iz ),    r_iz = log f(x)_iz - mean_z' log f(x)_iz'

As r differs from the source's logits l by their mean alone, A r is linear in l: A (1 - 11'/Z) l. So a head made of the
source head's rows gives q exactly where the head is linear, as P(z|y) does for the LEEP head. Fine-tuning from a
probed head is known to spoil the pre-trained features less than from a random one (Kumar et al., ICLR 2022). It is
not of the transfer risk map's paper.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

#: Voxels of a class that a case gives; log-probabilities are cut below this.
PER_CLASS, FLOOR = 512, 1e-6


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        matrix: A, (Y, Z) float64.
        bias: b, (Y,) float64.
        loss: Cross-entropy on the voxels that it was fitted on, nats, each class counted as often as it is in the
            training cases: to be held against -LEEP, and at most H(Y).
    """

    matrix: Tensor
    bias: Tensor
    loss: float

    def rows(self) -> Tensor:
        """Returns how much of each source channel's row a target class's row takes, (Y, Z) float64."""
        return self.matrix - self.matrix.mean(1, keepdim=True)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {"matrix": self.matrix.tolist(), "bias": self.bias.tolist(), "loss": self.loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Probe":
        """Restores what ``to_json`` gave."""
        matrix, bias = (torch.tensor(values[name], dtype=torch.float64) for name in ("matrix", "bias"))
        return cls(matrix, bias, float(values["loss"]))


@dataclass(frozen=True)
class VoxelSample:
    """Some voxels of a case.

    Attributes:
        features: r, (N, Z) float32.
        classes: (N,) int64 target classes.
    """

    features: Tensor
    classes: Tensor


def sample_voxels(probabilities: Tensor, target: Tensor, num_classes: int, per_class: int = PER_CLASS) -> VoxelSample:
    """Takes up to ``per_class`` voxels of each class, evenly spread over the volume: no chance is in it.

    Args:
        probabilities: (Z, *spatial) float32.
        target: (*spatial) int64 classes; others than 0 to num_classes - 1 are left out.
        num_classes: Y.
        per_class: The most voxels of a class.
    """
    labels = target.flatten()
    chosen = []
    for index in range(num_classes):
        voxels = (labels == index).nonzero()[:, 0]
        if len(voxels) > per_class:
            voxels = voxels[torch.arange(per_class, device=voxels.device) * len(voxels) // per_class]
        chosen.append(voxels)
    where = torch.cat(chosen)
    logs = probabilities.flatten(1)[:, where].float().clamp_min(FLOOR).log().T
    return VoxelSample((logs - logs.mean(1, keepdim=True)).cpu(), labels[where].cpu())


def fit_probe(samples: Sequence[VoxelSample], class_voxels: Sequence[float], ridge: float = 1e-3) -> Probe:
    """Fits the probe, each class counted as often as it is in the training cases, not in the samples.

    Args:
        samples: Of the training cases.
        class_voxels: Y numbers: the voxels of each class in the training cases. A class without any gets a row of
            zeros.
        ridge: Factor of the penalty sum A^2, which keeps A finite where classes can be told apart without error.
    """
    features = torch.cat([sample.features for sample in samples]).double()
    classes = torch.cat([sample.classes for sample in samples])
    voxels = torch.tensor(class_voxels, dtype=torch.float64)
    weight = (voxels / torch.bincount(classes, minlength=len(voxels)).clamp_min(1))[classes]
    weight = weight / weight.sum()
    absent = torch.where(voxels > 0, 0.0, -torch.inf).double()
    matrix = torch.zeros(len(voxels), features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(voxels), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([matrix, bias], max_iter=200, line_search_fn="strong_wolfe")

    def entropy() -> Tensor:
        logits = features @ matrix.T + bias + absent
        return (weight * nnf.cross_entropy(logits, classes, reduction="none")).sum()

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = entropy() + ridge * matrix.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return Probe(matrix.detach(), bias.detach(), float(entropy().detach()))
