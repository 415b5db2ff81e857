"""Where in a volume training patches are taken."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torchio as tio

from riskft.errors import InputError


class PatchSampling(ABC):
    """Builds a TorchIO patch sampler for a patch size and a number of classes."""

    needs_risk = False
    """Whether subjects must carry a risk map."""

    @abstractmethod
    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns the sampler.

        Args:
            patch_size: Voxels along x, y, z.
            num_classes: Y, background included.
        """


class BalancedSampling(PatchSampling):
    """Patch centres are foreground with a given probability, shared equally by the foreground classes.

    Args:
        foreground: Probability that a patch is centred on foreground.
    """

    def __init__(self, foreground: float = 0.67) -> None:
        if not 0 <= foreground <= 1:
            raise InputError(f"Expected argument `foreground` to be in [0, 1], but got {foreground}")
        self.foreground = foreground

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a label sampler."""
        share = self.foreground / max(1, num_classes - 1)
        # never quite 0, so that a volume without foreground still gives patches
        probabilities = {0: max(1 - self.foreground, 1e-6), **dict.fromkeys(range(1, num_classes), share)}
        return tio.LabelSampler(tuple(patch_size), label_name="label", label_probabilities=probabilities)


class UniformSampling(PatchSampling):
    """Patch centres are anywhere with equal probability."""

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a uniform sampler."""
        return tio.UniformSampler(tuple(patch_size))


class RiskSampling(PatchSampling):
    """Patch centres follow the risk map: a voxel's probability is proportional to its weight."""

    needs_risk = True

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a weighted sampler on the image ``risk``."""
        return tio.WeightedSampler(tuple(patch_size), "risk")
