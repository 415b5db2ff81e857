"""Maps a hardness volume to a weight volume, with all options in one place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from riskft.compat import lazy_instance, made
from riskft.errors import InputError
from riskft.files import without_addresses
from riskft.risk.distribution import BINS, ClassDistribution
from riskft.risk.leep import class_prior, label_entropy
from riskft.risk.weighting import Normalise, PowerWeight, RankNormalise, WeightFunction, mean_weight

T = TypeVar("T")


@dataclass(frozen=True)
class RiskMapping:
    """Options of the map.

    The default is a power of the hardness's rank within its class: raw hardness is mostly the class prior, and
    weighting by it over-segments, but within a class it shows where the source helps or misleads. The two safeguards
    (``balance``, ``temper``) keep heavy background from drowning a rare class when the source knows little.

    Args:
        normalise: ``RankNormalise``, ``QuantileNormalise``, ``MinMaxNormalise`` or ``WindowNormalise``.
        scope: The voxels that a voxel is compared with: those of its ``volume``, of the whole ``dataset``, or of its
            ``class`` in the data set.
        measure: What is normalised: the ``hardness`` h; ``relative_to_prior``, h + log P(y), the negative pointwise
            mutual information of source prediction and label (> 0: the source makes the true label less likely than
            its class's share does); or ``class_prior``, -log P(y), the hardness that an uninformative source gives:
            class weighting, the control that a map must beat.
        weight: ``ExponentialWeight``, ``LinearWeight`` or ``PowerWeight``.
        balance: Divide each class's weights by their mean over the data set, so that no class (above all the
            background) gains total weight from the map.
        temper: Shrink weights towards 1 by the source's knowledge of the labels, w <- 1 + s (w - 1) with
            s = 1 + LEEP / H(Y) in [0, 1]: an uninformative source gives plain fine-tuning.
    """

    normalise: Normalise = field(default_factory=lambda: lazy_instance(RankNormalise))
    scope: Literal["volume", "dataset", "class"] = "class"
    measure: Literal["hardness", "relative_to_prior", "class_prior"] = "hardness"
    weight: WeightFunction = field(default_factory=lambda: lazy_instance(PowerWeight))
    balance: bool | Literal["gradient"] = True
    temper: bool = True

    def __post_init__(self) -> None:
        if self.balance not in (True, False, "gradient"):
            raise InputError(f"Expected argument `balance` to be true, false or 'gradient', but got {self.balance!r}")
        if self.balance == "gradient" and self.measure != "hardness":
            raise InputError(
                f"Expected argument `measure` to be 'hardness' with `balance` of 'gradient', but got {self.measure!r}"
            )

    def describe(self) -> dict[str, object]:
        """Returns the options as plain values, for the fingerprint."""
        normalise, weight = made(self.normalise), made(self.weight)
        return {
            "normalise": [type(normalise).__name__, _public(normalise)],
            "scope": self.scope,
            "measure": self.measure,
            "weight": [type(weight).__name__, _public(weight)],
            "balance": self.balance,
            "temper": self.temper,
        }

    def values(self, hardness: Tensor, classes: Tensor, joint: Tensor) -> Tensor:
        """Returns the measure, which is then normalised, in nats: (N,) float64, or the hardness itself.

        Args:
            hardness: (N,) in nats.
            classes: (N,) int64 target classes.
            joint: (Y, Z) of any scale.
        """
        if self.measure == "hardness":
            return hardness
        prior = class_prior(joint)
        information = -prior.clamp_min(torch.finfo(prior.dtype).tiny).log()[classes]
        return information if self.measure == "class_prior" else hardness.double() - information

    def weights(self, values: Tensor, classes: Tensor, dataset: ClassDistribution, knowledge: float) -> Tensor:
        """Maps one volume's values to weights.

        Args:
            values: (N,) from ``values``, of the volume's voxels that are not ignored.
            classes: (N,) int64 target classes.
            dataset: Distribution of the values of all training volumes.
            knowledge: ``source_knowledge`` of the joint, in [0, 1].

        Returns:
            (N,) float32 weights > 0.
        """
        own = dataset
        if self.scope == "volume":
            own = ClassDistribution(dataset.num_classes)
            own.update(values, classes)
        return self.weighting(own, knowledge)(values, classes)

    def weighting(self, own: ClassDistribution, knowledge: float) -> "Weighting":
        """Returns the function that maps values and classes to weights, as ``weights`` does.

        Args:
            own: Distribution of the values of all training volumes; with the scope ``volume``, of one volume.
            knowledge: ``source_knowledge`` of the joint, in [0, 1].
        """
        normalise, function = made(self.normalise), made(self.weight)
        scale = own if self.scope == "class" else own.pooled()
        means = mean_weight(normalise, function, scale, own, self.balance == "gradient") if self.balance else None

        def weigh(values: Tensor, classes: Tensor) -> Tensor:
            weight = function(normalise(values.double(), classes, scale))
            if means is not None:
                weight = weight / means[classes]
            if self.temper:
                weight = 1 + knowledge * (weight - 1)
            return weight.float()

        if not normalise.by_bin:
            return Weighting(weigh)
        classes = torch.arange(own.num_classes).repeat_interleave(BINS)
        table = weigh(ClassDistribution.bin_centres().repeat(own.num_classes), classes)
        return Weighting(lambda *voxels: table.index_select(0, ClassDistribution.cells(*voxels)), table)


@dataclass(frozen=True)
class Weighting:
    """Maps values (N,) and classes (N,) int64 to weights (N,) float32."""

    weigh: Callable[[Tensor, Tensor], Tensor]
    table: Tensor | None = None
    """The weight of each cell of the distribution, (Y * BINS,), if the value within a bin does not matter."""

    def __call__(self, values: Tensor, classes: Tensor) -> Tensor:
        """Returns the weights."""
        return self.weigh(values, classes)


def source_knowledge(joint: Tensor, leep: float) -> float:
    """Returns the fraction of the labels' entropy, of a joint (Y, Z), that is explained: 1 + LEEP / H(Y), in [0, 1]."""
    entropy = label_entropy(joint)
    return 0.0 if entropy <= 0 else min(1.0, max(0.0, 1 + leep / entropy))


def _public(item: object) -> dict[str, object]:
    return {name: without_addresses(str(value)) for name, value in vars(item).items() if not name.startswith("_")}
