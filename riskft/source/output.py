"""How a source network's output channels become a distribution over source states z, which LEEP needs.

LEEP takes f(x)_i,z: probabilities over source classes z that sum to 1. A softmax head gives them. A sigmoid head
(multi-label, region-based) gives K numbers p_k that do not, and its states have to be said.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.source.reading import Activation


class SourceOutput(ABC):
    """Turns the K output channels of a source network into Z states, and says which channels a state means.

    Attributes:
        applied: Whether the network's outputs are probabilities, because it ends in the activation itself. None where
            that is to be found out.
    """

    applied: bool | None
    activation: ClassVar[Activation]

    @abstractmethod
    def states(self, logits: Tensor) -> Tensor:
        """Returns probabilities (B, Z, *spatial), which sum to 1 over Z, from logits (B, K, *spatial).

        Raises:
            InputError: If logits with so many channels cannot be such an output.
        """

    @abstractmethod
    def activity(self, channels: int) -> Tensor:
        """Returns how active each channel is in each state, (Z, K) float64, for K channels."""

    @abstractmethod
    def state_names(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the Z states from the names of the K channels."""


@dataclass(frozen=True)
class SoftmaxOutput(SourceOutput):
    """Classes that exclude each other: z is the class, P(z) the softmax.

    Args:
        applied: Whether the network itself ends in the softmax, so that its outputs are probabilities already. null
            finds out; false takes the outputs for logits, whatever they look like.
    """

    applied: bool | None = None
    activation: ClassVar[Activation] = "softmax"

    def states(self, logits: Tensor) -> Tensor:
        """Returns the softmax, (B, K, *spatial)."""
        if logits.shape[1] < 2:
            raise InputError(
                "The source network has one output channel, of which a softmax is always 1. If it is a sigmoid head, "
                "set model.source.output.class_path to riskft.SigmoidOutput."
            )
        return logits.softmax(1)

    def activity(self, channels: int) -> Tensor:
        """Returns the identity, (K, K)."""
        return torch.eye(channels, dtype=torch.float64)

    def state_names(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the channels' names."""
        return tuple(channel_names)


@dataclass(frozen=True)
class SigmoidOutput(SourceOutput):
    """Labels or regions that may overlap, one sigmoid each, as in region-based training.

    With up to ``max_exact`` channels, z is the set of labels that hold at the voxel (Z = 2^K, the empty set first), and
    with p_k the sigmoids, taken as independent given the image::

        P(z) = prod_{k in z} p_k  prod_{k not in z} (1 - p_k)      so  P(y, z) = 1/M  sum_i [y_i = y] P_i(z)

    Nested regions thus become their rings (whole tumour without core: oedema), which is what a target label is
    compared with. Sets that the regions' nesting excludes get next to no mass, and cost nothing but memory.

    With more channels 2^K states are too many, and z is one label or none (Z = K + 1)::

        P(none) = prod_k (1 - p_k),     P(k) = (1 - P(none)) p_k / sum_j p_j

    which is exact where at most one label holds, and shares a voxel out among its labels where several do.

    Args:
        max_exact: Up to how many channels the sets are told apart.
        applied: Whether the network itself ends in the sigmoid, so that its outputs are probabilities already. null
            finds out; false takes the outputs for logits, whatever they look like.
    """

    max_exact: int = 5
    applied: bool | None = None
    activation: ClassVar[Activation] = "sigmoid"

    def states(self, logits: Tensor) -> Tensor:
        """Returns P(z), (B, 2^K or K + 1, *spatial)."""
        on = logits.sigmoid()
        off = (-logits).sigmoid()  # not 1 - on, which is 0 from a logit of 17 upwards
        if logits.shape[1] <= self.max_exact:
            states = torch.ones_like(logits[:, :1])
            for channel in range(logits.shape[1]):
                k = slice(channel, channel + 1)
                states = torch.cat([states * off[:, k], states * on[:, k]], dim=1)
            return states
        none = off.prod(1, keepdim=True)
        shares = on / on.sum(1, keepdim=True).clamp_min(torch.finfo(on.dtype).tiny)
        return torch.cat([none, (1 - none) * shares], dim=1)

    def activity(self, channels: int) -> Tensor:
        """Returns 1 where a channel belongs to the state, else 0, (Z, K)."""
        if channels <= self.max_exact:
            bits = torch.arange(2**channels)[:, None] >> torch.arange(channels)
            return (bits & 1).double()
        return torch.cat([torch.zeros(1, channels), torch.eye(channels)]).double()

    def state_names(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Returns, for example, none, whole, core, whole+core."""
        return tuple(
            "+".join(name for name, active in zip(channel_names, row, strict=True) if active) or "none"
            for row in self.activity(len(channel_names)).bool().tolist()
        )
