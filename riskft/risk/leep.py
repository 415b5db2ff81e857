"""LEEP (Nguyen, Hassner, Archambeau, Seeger, ICML 2020, arXiv 2002.12462), voxel by voxel.

With ``f(x)_i`` the source network's probabilities over its own classes Z at voxel i, and ``y_i`` the target label::

    P(y, z) = 1/M  sum_i [y_i = y] f(x)_i,z          the joint, over all voxels of all target training volumes
    P(y|z)  = P(y, z) / sum_y' P(y', z)              or P(y) for a source class without mass
    EEP_i(y) = sum_z P(y|z) f(x)_i,z                 the expected empirical prediction, sums to 1 over y
    h_i     = -log EEP_i(y_i)                        hardness in nats, >= 0;  LEEP = -mean_i h_i

Source and target classes are never compared by index, so their numbers and order may differ.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from riskft.data.io.memory import BLOCK

MIN_PROBABILITY = 1e-12
"""Floor of EEP_i(y_i), so that hardness stays finite (27.6 nats) for a label that the training cases rule out."""


def _validate(source_probs: Tensor, target: Tensor) -> None:
    if source_probs.ndim < 2 or target.shape != (source_probs.shape[0], *source_probs.shape[2:]):
        raise ValueError(
            "Expected `source_probs` of shape (B, Z, *spatial) and `target` of shape (B, *spatial), but got "
            f"{tuple(source_probs.shape)} and {tuple(target.shape)}"
        )
    if target.is_floating_point():
        raise TypeError(f"Expected `target` to hold integer class indices, but got {target.dtype}")


def joint_mass(
    source_probs: Tensor, target: Tensor, num_target_classes: int, ignore_index: int | None = None
) -> Tensor:
    """Sums source probabilities per target class: the unnormalised joint, (Y, Z) float64, on their device.

    The probabilities, (B, Z, *spatial), sum to 1 over Z; the target is (B, *spatial) integer class indices in [0, Y),
    or ``ignore_index``. The sum of the joint is the number of voxels that are not ignored. Raises ValueError if shapes
    disagree or a label is outside [0, Y), and TypeError if ``target`` is floating.
    """
    _validate(source_probs, target)
    index = _class_index(target, num_target_classes, ignore_index).flatten()
    if source_probs.device.type == "cpu":
        columns = (column.flatten().double() for column in source_probs.unbind(1))
        sums = [torch.bincount(index, weights=column, minlength=num_target_classes + 1) for column in columns]
        return torch.stack(sums, dim=1)[:num_target_classes]
    return _product_mass(source_probs.movedim(1, 0).flatten(1), index, num_target_classes)


def _product_mass(probs: Tensor, index: Tensor, num_target_classes: int) -> Tensor:
    """Sums (Z, N) per class by a matrix product, whose order is fixed on a GPU too, unlike an indexed sum's."""
    chosen = index == torch.arange(num_target_classes, device=index.device)[:, None]
    return chosen.double() @ probs.double().T


def _class_index(target: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    """Returns the classes in a dtype that holds ``num_classes``, which stands for ignored voxels.

    Raises:
        ValueError: If another label is outside [0, num_classes).
    """
    if target.dtype == torch.bool or torch.iinfo(target.dtype).max < num_classes:
        target = target.long()
    ignored = _ignored(target, ignore_index)
    counted = target if ignored is None else target.masked_fill(ignored, 0)
    if counted.numel():
        lowest, highest = (int(value) for value in counted.aminmax())
        if lowest < 0 or highest >= num_classes:
            raise ValueError(f"Expected `target` in [0, {num_classes}), but got values {lowest} to {highest}")
    return counted if ignored is None else counted.masked_fill_(ignored, num_classes)


def _ignored(target: Tensor, ignore_index: int | None) -> Tensor | None:
    """Returns which voxels are ignored; None, which is quick to find out, if none are."""
    if ignore_index is None or not target.numel():
        return None
    lowest, highest = (int(value) for value in target.aminmax())
    return target == ignore_index if lowest <= ignore_index <= highest else None


def conditional_from_joint(joint: Tensor) -> Tensor:
    """Returns P(y|z) from a joint (Y, Z) of any scale, P(y) for z without mass; raises ValueError without any mass."""
    total = joint.sum()
    if not total > 0:
        raise ValueError("Expected a joint with positive mass: no voxel has been counted")
    mass = joint.sum(dim=0, keepdim=True)
    prior = joint.sum(dim=1, keepdim=True) / total
    return torch.where(mass > 0, joint / mass.clamp_min(torch.finfo(joint.dtype).tiny), prior)


def class_prior(joint: Tensor) -> Tensor:
    """Returns P(y), (Y,), from a joint (Y, Z) of any scale; its -log is an uninformative source's hardness."""
    return joint.sum(dim=1) / joint.sum()


def label_entropy(joint: Tensor) -> float:
    """Returns H(Y) in nats: minus the LEEP of an uninformative source."""
    prior = class_prior(joint)
    return float(-torch.xlogy(prior, prior).sum())


def expected_empirical_prediction(source_probs: Tensor, conditional: Tensor) -> Tensor:
    """Returns the EEP, (B, Y, *spatial), in the dtype of ``source_probs`` (B, Z, *spatial), given P(y|z) (Y, Z)."""
    flat = source_probs.reshape(*source_probs.shape[:2], -1)
    return (conditional.to(source_probs) @ flat).reshape(len(flat), len(conditional), *source_probs.shape[2:])


def hardness(source_probs: Tensor, target: Tensor, conditional: Tensor, ignore_index: int | None = None) -> Tensor:
    """Computes the transfer hardness of every voxel, in nats.

    Args:
        source_probs: (B, Z, *spatial) floating, sums to 1 over Z.
        target: (B, *spatial) integer class indices, or ``ignore_index``.
        conditional: (Y, Z), P(y|z).
        ignore_index: Label of ignored voxels; their hardness is 0.

    Returns:
        (B, *spatial) float32, in [0, 27.7].

    Raises:
        ValueError: If shapes disagree, or a label is outside [0, Y).
        TypeError: If ``target`` is floating.
    """
    _validate(source_probs, target)
    if conditional.ndim != 2 or conditional.shape[1] != source_probs.shape[1]:
        raise ValueError(
            f"Expected `conditional` of shape (Y, {source_probs.shape[1]}), but got {tuple(conditional.shape)}"
        )
    _class_index(target, len(conditional), ignore_index)
    probs, classes = source_probs.reshape(*source_probs.shape[:2], -1), target.reshape(len(target), -1)
    blocks = [
        hardness_of(expected_empirical_prediction(part.double(), conditional), own, ignore_index)
        for part, own in zip(torch.split(probs, BLOCK, 2), torch.split(classes, BLOCK, 1), strict=True)
    ]
    return torch.cat(blocks, 1).view(target.shape)


def hardness_of(eep: Tensor, target: Tensor, ignore_index: int | None = None) -> Tensor:
    """Computes the hardness from an EEP, (B, Y, *spatial) float64; see ``hardness``."""
    ignored = _ignored(target, ignore_index)
    index = target if ignored is None else target.masked_fill(ignored, 0)
    likelihood = eep.gather(1, index.long().unsqueeze(1)).squeeze(1)
    result = likelihood.clamp_(MIN_PROBABILITY, 1.0).log_().neg_().float()
    return result if ignored is None else result.masked_fill_(ignored, 0.0)


class LeepConditional(Metric):
    """Accumulates the exact joint P(y, z) over volumes and ranks; computes P(y|z).

    One pass of float64 sums, reduced over ranks by torchmetrics, because a moving average would depend on the order of
    the batches.

    Args:
        num_source_classes: Z.
        num_target_classes: Y.
        ignore_index: Label of ignored voxels.

    Example:
        >>> probs = torch.tensor([[.9, .1], [.8, .2], [.3, .7], [.4, .6]]).T[None]
        >>> metric = LeepConditional(2, 2)
        >>> metric.update(probs, torch.tensor([[0, 0, 1, 1]]))
        >>> metric.compute().round(decimals=4).tolist()
        [[0.7083, 0.1875], [0.2917, 0.8125]]
    """

    higher_is_better = None
    is_differentiable = False
    full_state_update = False
    joint: Tensor

    def __init__(
        self, num_source_classes: int, num_target_classes: int, ignore_index: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (
            ("num_source_classes", num_source_classes),
            ("num_target_classes", num_target_classes),
        ):
            if value < 1:
                raise ValueError(f"Expected argument `{name}` to be at least 1, but got {value}")
        self.num_source_classes = num_source_classes
        self.num_target_classes = num_target_classes
        self.ignore_index = ignore_index
        empty = torch.zeros(num_target_classes, num_source_classes, dtype=torch.float64)
        self.add_state("joint", default=empty, dist_reduce_fx="sum")

    def update(self, source_probs: Tensor, target: Tensor) -> None:
        """Adds volumes: ``source_probs`` (B, Z, *spatial) and ``target`` (B, *spatial)."""
        if source_probs.ndim >= 2 and source_probs.shape[1] != self.num_source_classes:
            raise ValueError(
                f"Expected `source_probs` with {self.num_source_classes} channels, but got {source_probs.shape[1]}"
            )
        self.joint += joint_mass(source_probs, target, self.num_target_classes, self.ignore_index).to(self.joint)

    def compute(self) -> Tensor:
        """Returns P(y|z), (Y, Z) float64; columns sum to 1."""
        return conditional_from_joint(self.joint)
