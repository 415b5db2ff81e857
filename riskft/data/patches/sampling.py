"""Where in a volume training patches are taken."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torchio as tio

from riskft.data.patches.augment import WEIGHT
from riskft.data.patches.centres import ClassSampler, RiskClassSampler, RiskSampler
from riskft.errors import InputError


class PatchSampling(ABC):
    """Builds a TorchIO patch sampler for a patch size and a number of classes.

    A patch lies inside the volume: where the voxels to draw from are all within half a patch of the border, it is taken
    as near as it fits. A volume without any voxel that counts gives patches from anywhere.
    """

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
        self.foreground = _probability(foreground)

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a label sampler."""
        return ClassSampler(tuple(patch_size), "label", _class_shares(self.foreground, num_classes))


class UniformSampling(PatchSampling):
    """Patch centres are anywhere with equal probability."""

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a uniform sampler."""
        return tio.UniformSampler(tuple(patch_size))


class RiskSampling(PatchSampling):
    """Patch centres follow the risk map: a voxel's probability is proportional to its weight.

    Voxels of the ignored label are never centres.
    """

    needs_risk = True

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a weighted sampler on the image ``risk``."""
        return RiskSampler(tuple(patch_size), WEIGHT)


class BalancedRiskSampling(PatchSampling):
    """As ``BalancedSampling``, but inside a class patch centres follow the risk map.

    Args:
        foreground: Probability that a patch is centred on foreground.
    """

    needs_risk = True

    def __init__(self, foreground: float = 0.67) -> None:
        self.foreground = _probability(foreground)

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a label sampler that follows the image ``risk``."""
        return RiskClassSampler(tuple(patch_size), "label", _class_shares(self.foreground, num_classes))


def _class_shares(foreground: float, num_classes: int) -> dict[int, float]:
    share = foreground / max(1, num_classes - 1)
    # never quite 0, so that a volume without foreground still gives patches
    return {0: max(1 - foreground, 1e-6), **dict.fromkeys(range(1, num_classes), share)}


def _probability(foreground: float) -> float:
    if not 0 <= foreground <= 1:
        raise InputError(f"Expected argument `foreground` to be in [0, 1], but got {foreground}")
    return foreground
