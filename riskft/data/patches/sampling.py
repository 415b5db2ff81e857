"""Where training patches are sampled in a volume."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torchio as tio

from riskft.data.patches.augment import WEIGHT
from riskft.data.patches.centres import ClassSampler, RiskClassSampler, RiskSampler
from riskft.errors import InputError


class PatchSampling(ABC):
    """Builds a TorchIO patch sampler for a patch size and a number of classes.

    Patches lie inside the volume: if all candidate voxels are within half a patch of the border, the patch moves to the
    nearest place that fits. A volume with only ignored voxels gives patches from anywhere.
    """

    needs_risk = False
    """Whether subjects must carry a risk map."""
    numbers = 2
    """Random numbers that the sampler takes from torch's generator for a patch: one for a centre, one for the crop."""

    @abstractmethod
    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns the sampler. It gets the label, and the risk map if ``needs_risk``.

        Args:
            patch_size: Voxels along x, y, z.
            num_classes: Y, background included.
        """


class BalancedSampling(PatchSampling):
    """Patch centres are in foreground with a given probability, shared equally by the foreground classes.

    Args:
        foreground: Probability that a patch is centred on foreground.
    """

    def __init__(self, foreground: float = 0.67) -> None:
        self.foreground = _probability(foreground)

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a label sampler."""
        return ClassSampler(tuple(patch_size), "label", _class_shares(self.foreground, num_classes))


class UniformSampling(PatchSampling):
    """Patch centres are uniformly distributed."""

    numbers = 4

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a uniform sampler."""
        return tio.UniformSampler(tuple(patch_size))


class RiskSampling(PatchSampling):
    """Patch centres follow the risk map: a voxel's probability is proportional to its weight.

    Ignored voxels are never centres.
    """

    needs_risk = True

    def build(self, patch_size: Sequence[int], num_classes: int) -> tio.data.PatchSampler:
        """Returns a weighted sampler on the image ``risk``."""
        return RiskSampler(tuple(patch_size), WEIGHT)


class BalancedRiskSampling(PatchSampling):
    """Like ``BalancedSampling``, but patch centres follow the risk map within each class.

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
    # never 0, so that a volume without foreground still gives patches
    return {0: max(1 - foreground, 1e-6), **dict.fromkeys(range(1, num_classes), share)}


def _probability(foreground: float) -> float:
    if not 0 <= foreground <= 1:
        raise InputError(f"Expected argument `foreground` to be in [0, 1], but got {foreground}")
    return foreground
