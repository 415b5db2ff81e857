"""TorchIO's samplers, extended to find a patch in every volume that is at least as large as one.

TorchIO never centres a patch within half a patch of the border, and fails if all candidates are there: a lesion or a
few annotated slices at the edge, a volume of exactly the patch's size. Here such voxels keep their probability, and
the patch moves to the nearest place that fits. All other volumes are sampled as by TorchIO.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio
from torch import Tensor
from torchio.constants import MIN_FLOAT_32

from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.augment import WEIGHT


def places(sampler: tio.data.PatchSampler, subject: tio.Subject, count: int) -> list[list[int]]:
    """Draws the first voxel of each patch."""
    if isinstance(sampler, ClassSampler) and (quick := sampler.quick_places(subject, count)) is not None:
        return quick
    return [patch[tio.LOCATION][:3].tolist() for patch in sampler(subject, count)]


class _NearestSampler(tio.WeightedSampler):  # type: ignore[misc]
    def process_probability_map(self, probability_map: Tensor, subject: tio.Subject) -> npt.NDArray[np.float64]:
        """Returns the probability of each centre, (X, Y, Z); uniform over those that fit if all voxels have 0."""
        chances = probability_map[0].numpy().astype(np.float64)
        fits = fitting_centres(chances.shape, self.patch_size.tolist())
        centres = moved_inside(chances, fits)
        if not centres.any():
            centres[fits] = 1
        centres /= centres.sum()
        return centres


class ClassSampler(_NearestSampler, tio.LabelSampler):  # type: ignore[misc]
    """A label sampler in which a class that has voxels only near the border keeps its share."""

    def get_probability_map(self, subject: tio.Subject) -> Tensor:
        """Returns the probability of each voxel, (1, X, Y, Z)."""
        share: Tensor = super().get_probability_map(subject)  # 0 if no patch fits
        label = self.get_probability_map_image(subject).data
        total = sum(self.label_probabilities_dict.values())
        for index, probability in self.label_probabilities_dict.items():
            voxels = label == index
            if (count := int(voxels.sum())) and not share[voxels].any():
                share[voxels] = probability / total / count
        return share

    def quick_places(self, subject: tio.Subject, count: int) -> list[list[int]] | None:
        """Draws the first voxel of each patch as TorchIO does, but from counts of the classes in slices across x.

        Returns None, and draws nothing, where rounding could matter or a class has voxels only near the border.
        """
        if type(self) is not ClassSampler:
            return None
        label = subject["label"].data[0].numpy()
        size = self.patch_size.tolist()
        inside = label[fitting_centres(label.shape, size)]
        slices = np.stack([np.bincount(part.ravel(), minlength=256) for part in inside])
        counts = slices.sum(0)
        if any(not counts[k] and (label == k).any() for k in self.label_probabilities_dict):
            return None
        shares = torch.tensor(list(self.label_probabilities_dict.values()))
        shares = shares / shares.sum()  # rounded to float32 at the same steps as in TorchIO
        chances = np.zeros(256)
        for k, share in zip(self.label_probabilities_dict, shares, strict=True):
            chances[k] = float(share / counts[k]) if counts[k] else 0
        ends = np.cumsum(slices @ chances)
        before = torch.get_rng_state()
        found = []
        for _ in range(count):
            number = max(MIN_FLOAT_32, torch.rand(1).item()) * ends[-1]
            torch.rand(1)  # TorchIO's crop draws whether it applies
            x = int(np.searchsorted(ends, number))
            along = np.cumsum(chances[inside[x]]) + (ends[x - 1] if x else 0)
            place = int(np.searchsorted(along, number))
            near = along[max(0, place - 1) : place + 1]
            if place == len(along) or np.abs(near - number).min() < 1e-11:
                torch.set_rng_state(before)
                return None
            found.append([x, *(int(k) for k in np.unravel_index(place, inside.shape[1:]))])
        return found


class RiskClassSampler(ClassSampler):
    """A label sampler that follows the risk map inside each class."""

    def get_probability_map(self, subject: tio.Subject) -> Tensor:
        """Returns each class's share, in proportion to the weights of its voxels that can be drawn."""
        share = super().get_probability_map(subject)
        label = self.get_probability_map_image(subject).data
        weight = subject[WEIGHT].data.clamp_min(0) * (share > 0)  # splines overshoot
        for index in torch.unique(label[share > 0]).tolist():
            inside = (label == index) & (share > 0)
            if weight[inside].sum() > 0:
                share[inside] = share[inside].sum() * weight[inside] / weight[inside].sum()
        return share


class RiskSampler(_NearestSampler):
    """Draws voxels in proportion to the risk map, and never ignored ones, whose weight is only a placeholder of 1."""

    def get_probability_map(self, subject: tio.Subject) -> Tensor:
        """Returns the weight of each voxel that can be drawn, (1, X, Y, Z)."""
        weight: Tensor = subject[WEIGHT].data.clamp_min(0)  # splines overshoot
        if "label" in subject:
            weight = weight * (subject["label"].data != IGNORE_INDEX)
        inside = torch.zeros_like(weight)
        fits = fitting_centres(weight.shape[1:], self.patch_size.tolist())
        inside[0][fits] = weight[0][fits]
        return inside if inside.any() else weight


def fitting_centres(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[slice, ...]:
    """Returns where a patch can have its centre; for even sizes it lies after the middle, as in TorchIO."""
    return tuple(slice(size // 2, edge - (size - 1) // 2) for edge, size in zip(shape, patch_size, strict=True))


def moved_inside(chances: npt.NDArray[np.float64], fits: Sequence[slice]) -> npt.NDArray[np.float64]:
    """Returns a copy, (X, Y, Z), in which the probability outside a box moved to the nearest voxel inside."""
    moved: npt.NDArray[np.float64] = chances.copy()
    for axis, box in enumerate(fits):
        along = np.moveaxis(moved, axis, 0)
        along[box.start] += along[: box.start].sum(0)
        along[box.stop - 1] += along[box.stop :].sum(0)
        along[: box.start] = along[box.stop :] = 0
    return moved
