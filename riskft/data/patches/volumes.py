"""Makes the patches of a training volume: each from its own part of the files, or all from the whole volume."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import torchio as tio
from torch import Tensor
from torch.nn import functional

from riskft.data.io.boxes import Boxes, ChannelBoxes
from riskft.data.io.damage import files_named
from riskft.data.io.memory import GivesBack
from riskft.data.patches.augment import (
    WEIGHT,
    PadToPatch,
    drawn,
    training_transform,
    with_intensities,
    works_on_patches,
)
from riskft.data.patches.batch import PatchBatch, patch_batch
from riskft.data.patches.centres import places
from riskft.data.patches.queue import Patches, Visit
from riskft.data.patches.sampling import PatchSampling
from riskft.data.patches.subjects import NamedSubjects, TrainingMaps
from riskft.data.patches.warp import Grid, Warp, outside, sample
from riskft.data.prepare.cache import PreparedCase


def training_patches(
    cases: Sequence[PreparedCase],
    maps: TrainingMaps,
    augment: Sequence[tio.Transform],
    patch_size: Sequence[int],
    sampling: PatchSampling,
    num_classes: int,
    per_volume: int,
) -> Patches:
    """Returns the object that makes the training cases' patches; for the arguments, see ``RiskDataModule``.

    Raises:
        InputError: If a case has no map.
    """
    subjects = maps.subjects(cases)
    sampler = sampling.build(patch_size, num_classes)
    if works_on_patches(augment):
        return PatchesOfParts(subjects, sampler, per_volume, sampling, augment)
    whole = NamedSubjects(subjects, transform=training_transform(augment, patch_size))
    return PatchesOfWholes(whole, sampler, per_volume, sampling.numbers)


class PatchesOfWholes(Patches):
    """Transforms a whole volume (by the transform of ``subjects``), and cuts the patches from the result."""

    def __init__(
        self, subjects: tio.SubjectsDataset, sampler: tio.data.PatchSampler, per_volume: int, numbers: int
    ) -> None:
        self.per_volume, self.numbers, self.augmented = per_volume, numbers, True
        self._subjects, self._sampler, self._give_back = subjects, sampler, GivesBack()

    def __len__(self) -> int:
        return len(self._subjects)

    def patches(self, visit: Visit) -> PatchBatch:
        """Returns a volume's patches."""
        self._give_back()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(visit.seed)
            subject = self._subjects[visit.volume]
            torch.set_rng_state(visit.numbers)
            return patch_batch(list(self._sampler(subject, self.per_volume)))


class PatchesOfParts(Patches):
    """Reads and transforms only the part of a volume that a patch needs.

    Each patch is cut from a volume that is transformed with its own random parameters. Its centre is drawn before the
    transforms, and moves with them.
    """

    def __init__(
        self,
        subjects: Sequence[tio.Subject],
        sampler: tio.data.PatchSampler,
        per_volume: int,
        sampling: PatchSampling,
        augment: Sequence[tio.Transform] = (),
    ) -> None:
        self.per_volume, self.numbers, self.augmented = per_volume, sampling.numbers, bool(augment)
        self._sampler, self._augment, self._needs_risk = sampler, tio.Compose(augment), sampling.needs_risk
        self._subjects = [(each["name"], each["foreground_fraction"], _files(each)) for each in subjects]
        self._boxes: dict[Path, Boxes] = {}
        self._size = sampler.patch_size.tolist()
        self._give_back = GivesBack()

    def __len__(self) -> int:
        return len(self._subjects)

    def numbers_before(self, index: int) -> int:
        """Returns 2 for the decisions whether two transforms apply, and one more per image of a volume to pad."""
        name, _, files = self._subjects[index]
        with files_named(name, [files["image"]]):
            small = any(own < edge for own, edge in zip(self._open(files["image"]).shape, self._size, strict=True))
        return 2 + len(files) * small

    def patches(self, visit: Visit) -> PatchBatch:
        """Returns a volume's patches."""
        self._give_back()
        name, fraction, files = self._subjects[visit.volume]
        with files_named(name, list(files.values())), torch.random.fork_rng(devices=[]):
            volume = _Volume({kind: self._open(path) for kind, path in files.items()}, self._size)
            torch.set_rng_state(visit.numbers)
            starts = places(self._sampler, volume.subject(self._needs_risk), self.per_volume)
            torch.manual_seed(visit.seed)
            parts = [self._patch(volume, start) for start in starts]
        stacked = {kind: torch.stack([part[kind] for part in parts]) for kind in files}
        count = len(parts)
        return PatchBatch((name,) * count, foreground_fraction=fraction.expand(count), **stacked)

    def _patch(self, volume: "_Volume", start: list[int]) -> dict[str, Tensor]:
        if not self.augmented:
            return volume.read(start)
        spatial, intensities = drawn(self._augment, volume.grid, volume.channels)
        if spatial:
            warp = Warp(spatial, volume.grid)
            start = volume.start_at(warp.forward((np.array(start) + np.array(volume.size) // 2).tolist()).tolist())
            patch = volume.warped(warp, start)
        else:
            patch = volume.read(start)
        patch["image"] = with_intensities(patch["image"], intensities, start, volume.grid)
        return patch

    def _open(self, path: Path) -> Boxes | ChannelBoxes:
        if path.suffix == ".npz":
            return ChannelBoxes(path)
        if path not in self._boxes:
            self._boxes[path] = Boxes(path)
        return self._boxes[path]


class _Volume:
    """The images of a training volume, padded to the size of a patch; see ``PadToPatch``."""

    def __init__(self, images: dict[str, Boxes | ChannelBoxes], size: list[int]) -> None:
        self.size, self._images = size, images
        first = images["image"]
        self.channels = first.channels
        self._shape = np.array(first.shape)
        missing = np.maximum(0, np.array(size) - self._shape)
        self._before, self._padded = missing // 2, bool(missing.any())
        affine = first.affine.copy()
        affine[:3, 3] -= affine[:3, :3] @ self._before
        self.grid = Grid(tuple((self._shape + missing).tolist()), affine)

    def subject(self, with_risk: bool) -> tio.Subject:
        """Returns the whole label, and with it the risk map if asked for."""
        images = {"label": tio.LabelMap(tensor=self._box("label", [0, 0, 0], self.grid.shape))}
        if with_risk:
            images[WEIGHT] = tio.ScalarImage(tensor=self._box(WEIGHT, [0, 0, 0], self.grid.shape))
        return tio.Subject(images)

    def start_at(self, centre: Sequence[float]) -> list[int]:
        """Returns the first voxel of the patch around a centre, moved so that the patch is inside the volume."""
        start = np.rint(centre).astype(int) - np.array(self.size) // 2
        return np.clip(start, 0, np.array(self.grid.shape) - self.size).tolist()  # type: ignore[no-any-return]

    def read(self, start: Sequence[int]) -> dict[str, Tensor]:
        """Returns a patch of each image."""
        stop = (np.asarray(start) + self.size).tolist()
        return {kind: self._box(kind, start, stop) for kind in self._images}

    def warped(self, warp: Warp, start: Sequence[int]) -> dict[str, Tensor]:
        """Returns a patch of each warped image, sampled at the same coordinates: the label nearest, others linearly."""
        if not warp.interpolates:
            axes = [k + 1 for k in range(3) if warp.outer[k, k] < 0]
            corners = (nib.affines.apply_affine(warp.outer, corner) for corner in (start, np.add(start, self.size) - 1))
            from_start = np.minimum(*corners).astype(int).tolist()
            return {kind: box.flip(axes) for kind, box in self.read(from_start).items()}
        low, high = warp.reach(start, self.size)
        coordinates = warp.coordinates(start, self.size)
        beyond = outside(coordinates, self.grid.shape)
        coordinates -= torch.tensor(low, dtype=torch.float32).view(3, 1, 1, 1)
        kinds = [kind for kind in self._images if kind != "label"]
        boxes = [self._box(kind, low, high) for kind in kinds]
        mixed = torch.split(sample(torch.cat(boxes), coordinates, "bilinear"), [len(box) for box in boxes])
        label = sample(self._box("label", low, high).float(), coordinates, "nearest")
        patch = {**dict(zip(kinds, mixed, strict=True)), "label": label}
        if beyond.any():
            for kind, values in patch.items():
                for channel, value in zip(values, self._pad_values(kind, warp), strict=True):
                    channel[beyond] = value
        patch["label"] = patch["label"].to(torch.uint8)
        return patch

    def _pad_values(self, kind: str, warp: Warp) -> list[float]:
        boxes = self._images[kind]
        given = warp.pad_label if kind == "label" else None if warp.pad_value == "minimum" else warp.pad_value
        minima = boxes.minima()
        if given is not None:
            return [float(given)] * len(minima)
        return [min(value, _beyond(kind)) if self._padded else value for value in minima]

    def _box(self, kind: str, start: Sequence[int], stop: Sequence[int]) -> Tensor:
        low, high = (np.clip(np.asarray(end) - self._before, 0, self._shape) for end in (start, stop))
        box = self._images[kind].read(low.tolist(), high.tolist())
        size = np.subtract(stop, start)
        before = np.clip(low + self._before - start, 0, size)  # all of it, if the box lies beyond the volume
        after = size - before - (high - low)
        if before.any() or after.any():
            ends = [int(end) for k in (2, 1, 0) for end in (before[k], after[k])]
            box = functional.pad(box, ends, value=_beyond(kind))
        return box if kind == "label" else box.float()


def _files(subject: tio.Subject) -> dict[str, Path]:
    return {kind: Path(image.path) for kind, image in subject.get_images_dict(intensity_only=False).items()}


def _beyond(kind: str) -> float:
    """The value of an image beyond a volume that is smaller than a patch."""
    return PadToPatch.values.get(kind, 0)
