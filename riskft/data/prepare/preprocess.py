"""Deterministic preprocessing of one case: pure functions from files to tensors."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from nibabel.affines import from_matvec
from torch import Tensor

from riskft.data.findings import FaultKind, WarningKind
from riskft.data.io.grid import compare_grids
from riskft.data.io.resample import Indices, covering_box, covering_grid, resampled
from riskft.data.io.volume_faults import open_volume
from riskft.data.io.volumes import Affine, read_volume
from riskft.data.labels import LabelMap
from riskft.data.prepare.background import find_background
from riskft.data.prepare.intensity import Intensity, ZScoreIntensity
from riskft.data.records import Case
from riskft.errors import InputError

_AXES = ("RL", "AP", "SI")


@dataclass(frozen=True)
class Preprocessing:
    """Options of the deterministic preprocessing.

    In this order: orientation, resampling (linear; labels nearest), cropping to the body, intensities. The body mask
    is all that is not background in the file's grey values, see ``riskft.data.prepare.background``.

    Args:
        spacing: Voxel size in mm along the axes of the orientation, or None to keep each case's own.
        crop: Crop to the bounding box of the body mask.
        margin: Voxels kept around the body.
        orientation: Directions of the axes, for example RAS (x to the right, y to anterior, z to superior), or None to
            keep each file's own. Set the axes that the source network was trained on, for example ``LIA``.
        intensity: Normalisation of the grey values; None leaves them alone.
    """

    spacing: tuple[float, float, float] | None = None
    crop: bool = True
    margin: int = 2
    orientation: str | None = "RAS"
    intensity: Intensity | None = ZScoreIntensity()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise InputError(
                f"data.preprocessing.spacing is {list(self.spacing)}, expected three lengths in mm above 0."
            )
        if self.margin < 0:
            raise InputError(f"data.preprocessing.margin is {self.margin}, expected 0 voxels or more.")
        letters = [[letter for letter in self.orientation or "" if letter in pair] for pair in _AXES]
        if self.orientation is not None and (len(self.orientation) != 3 or any(len(found) != 1 for found in letters)):
            raise InputError(
                f"data.preprocessing.orientation is '{self.orientation}', expected three capitals, one from each of "
                f"{', '.join(_AXES)} in any order, such as RAS; or null for the file's own axes."
            )

    def describe(self) -> dict[str, Any]:
        """Returns the options as plain values, for the fingerprint."""
        return {**asdict(self), "intensity": self.intensity.describe() if self.intensity else None}


@dataclass(frozen=True)
class PreparedVolumes:
    """One preprocessed case.

    Attributes:
        image: (C, X, Y, Z) float32.
        label: (1, X, Y, Z) uint8 class indices (255: ignored), or None.
        mask: (1, X, Y, Z) bool, body in any channel.
        affine: Voxel-to-mm, (4, 4).
    """

    image: Tensor
    label: Tensor | None
    mask: Tensor
    affine: Affine


def preprocess(case: Case, labels: LabelMap, options: Preprocessing) -> PreparedVolumes:
    """Reads and preprocesses one case.

    Raises:
        InputError: If a file cannot be read or holds NaN, grids differ, or a label value is in no class.
    """
    read = (read_volume(path, case.channels.get(name)) for name, path in case.images.items())
    arrays, affines = zip(*read, strict=True)
    affine = affines[0]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"{case.subject}: modalities have shapes {[array.shape for array in arrays]}, expected one.")
    image = torch.from_numpy(np.stack(arrays).astype(np.float32))
    broken = [name for name, channel in zip(case.images, image, strict=True) if not channel.isfinite().all()]
    if broken:  # otherwise the body would be empty and the image zero, without an error
        files = ", ".join(str(case.images[name]) for name in broken)
        raise InputError(f"{files}: NaN or infinite voxels. Correct the file, or drop the case {case.subject}.")
    backgrounds = [find_background(channel.numpy()) for channel in image]
    inside = np.stack([~background.outside for background in backgrounds]).astype(np.uint8)
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=image, affine=affine),
        inside=tio.LabelMap(tensor=torch.from_numpy(inside), affine=affine),
    )
    if case.label is not None:
        raw, _ = read_volume(case.label)
        if raw.shape != arrays[0].shape:
            raise InputError(f"{case.label}: found shape {raw.shape}, expected {arrays[0].shape} as the image has.")
        try:
            mapped = labels.to_classes(raw)
        except InputError as error:
            raise InputError(f"{case.label}: {error}") from error
        subject.add_image(tio.LabelMap(tensor=torch.from_numpy(mapped)[None], affine=affine), "label")
    _require_one_place(case)
    if options.orientation is not None:
        subject = tio.ToOrientation(options.orientation)(subject)
    volumes = {name: image.data for name, image in subject.get_images_dict(intensity_only=False).items()}
    scan = own = np.asarray(subject["image"].affine, dtype=np.float64)
    body = _bounds(volumes["inside"].bool().any(0))
    if options.spacing is not None:
        shape, scan = covering_grid(subject.spatial_shape, own, options.spacing)
        if not np.array_equal(scan, own):
            volumes = {
                name: resampled(volume, own, shape, scan, nearest=name != "image") for name, volume in volumes.items()
            }
    if options.crop and body is not None:
        starts, ends = covering_box(*body, own, scan)
        starts = np.maximum(starts - options.margin, 0)
        along = (slice(start, end + 1 + options.margin) for start, end in zip(starts, ends, strict=True))
        box = (slice(None), *along)
        volumes = {name: volume[box].contiguous() for name, volume in volumes.items()}
        scan = scan @ from_matvec(np.eye(3), starts)
    image, head_voxels = volumes["image"].float(), volumes["inside"].bool()
    if options.intensity is not None:
        levels = [background.is_level for background in backgrounds]
        image = options.intensity.in_order(image, head_voxels, levels)
    return PreparedVolumes(
        image=image,
        label=volumes["label"].to(torch.uint8) if "label" in volumes else None,
        mask=head_voxels.any(0, keepdim=True),
        affine=scan,
    )


def head_mask(channel: Tensor) -> Tensor:
    """Returns where a channel (X, Y, Z) is not background: bool of the same shape."""
    return torch.from_numpy(~find_background(channel.numpy()).outside)


def _bounds(inside: Tensor) -> tuple[Indices, Indices] | None:
    """Returns the first and the last voxel of a mask along each axis; None if it is empty."""
    found = [inside.any(dim=2).any(dim=1), inside.any(dim=2).any(dim=0), inside.any(dim=1).any(dim=0)]
    if not found[0].any():
        return None
    places = [line.nonzero().flatten() for line in found]
    return np.array([int(line[0]) for line in places]), np.array([int(line[-1]) for line in places])


def _require_one_place(case: Case) -> None:
    """Raises InputError if the headers of a case's files, whose shapes agree, place them apart."""
    problems = []

    def report(kind: FaultKind | WarningKind, path: Path, message: str) -> None:
        if kind is FaultKind.AFFINE:  # reading has found all other faults
            problems.append(f"{path}: {message}.")

    channels = {path: case.channels.get(name) for name, path in case.images.items()}
    opened = (open_volume(path, report, (channels.get(path),)) for path in case.files)
    compare_grids([volume for volume in opened if volume is not None], report)
    if problems:
        raise InputError(f"The files of {case.subject} are not in the same place:", problems)
