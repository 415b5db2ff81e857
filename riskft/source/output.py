"""Turns a source network's output channels into the distribution over source states z that LEEP needs.

LEEP takes f(x)_i,z: probabilities over source classes z that sum to 1. A softmax head gives them. The K numbers p_k of
a sigmoid head (multi-label, region-based) do not sum to 1, so the states must be defined.
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
    """Turns the K output channels of a source network into Z states, and tells which channels each state means.

    Attributes:
        applied: Whether the network applies the activation itself, so that its outputs are probabilities. None to
            detect this.
    """

    applied: bool | None
    activation: ClassVar[Activation]

    @abstractmethod
    def states(self, logits: Tensor) -> Tensor:
        """Returns probabilities (B, Z, *spatial), which sum to 1 over Z, from logits (B, K, *spatial).

        They must not share the logits' memory, which is reused.

        Raises:
            InputError: If an output of this kind cannot have that many channels.
        """

    @abstractmethod
    def activity(self, channels: int) -> Tensor:
        """Returns how active each channel is in each state, (Z, K) float64, for K channels."""

    @abstractmethod
    def state_names(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the Z states from the names of the K channels."""


@dataclass(frozen=True)
class SoftmaxOutput(SourceOutput):
    """Mutually exclusive classes: z is the class and P(z) the softmax.

    Args:
        applied: Whether the network applies the softmax itself, so that its outputs are probabilities. null detects
            this; false treats the outputs as logits, whatever they look like.
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

    Nested regions thus become rings (whole tumour without core: oedema), which target labels are compared with. Sets
    that the nesting excludes get almost no mass and cost only memory.

    With more channels, 2^K states are too many, and z is one label or none (Z = K + 1)::

        P(none) = prod_k (1 - p_k),     P(k) = (1 - P(none)) p_k / sum_j p_j

    which is exact if at most one label holds; if several hold, the voxel is shared among them.

    Args:
        max_exact: Largest number of channels for which the states are sets.
        applied: Whether the network applies the sigmoid itself, so that its outputs are probabilities. null detects
            this; false treats the outputs as logits, whatever they look like.
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
