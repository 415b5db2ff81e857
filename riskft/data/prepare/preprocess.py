"""Deterministic preprocessing of one case: pure functions from files to tensors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.affines import from_matvec
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor

from riskft.data.findings import FaultKind, WarningKind
from riskft.data.io.grid import compare_grids
from riskft.data.io.resample import covering_box, covering_grid, resampled
from riskft.data.io.volume_faults import open_volume
from riskft.data.io.volumes import Affine, read_volume
from riskft.data.labels import LabelMap
from riskft.data.prepare.background import bounds, find_background
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
    """One preprocessed case."""

    image: Tensor  #: (C, X, Y, Z) float32.
    label: Tensor | None  #: (1, X, Y, Z) uint8 class indices (255: ignored), or None.
    mask: Tensor  #: (1, X, Y, Z) bool, body in any channel.
    affine: Affine  #: Voxel-to-mm, (4, 4).


def preprocess(case: Case, labels: LabelMap, options: Preprocessing) -> PreparedVolumes:
    """Reads and preprocesses one case.

    Raises:
        InputError: If a file cannot be read or holds NaN, grids differ, or a label value is in no class.
    """
    read = (read_volume(path, case.channels.get(name)) for name, path in case.images.items())
    image, affines = zip(*((_exact(array), affine) for array, affine in read), strict=True)
    own = affines[0]
    if len({channel.shape for channel in image}) > 1:
        raise InputError(f"{case.subject}: modalities have shapes {[array.shape for array in image]}, expected one.")
    ends = {name: (channel.min(), channel.max()) for name, channel in zip(case.images, image, strict=True)}
    if broken := [str(case.images[name]) for name in ends if not np.isfinite(ends[name]).all()]:
        # otherwise the body would be empty and the image zero, without an error
        files = ", ".join(broken)
        raise InputError(f"{files}: NaN or infinite voxels. Correct the file, or drop the case {case.subject}.")
    backgrounds = [find_background(channel) for channel in image]
    outside = [background.outside for background in backgrounds]
    arrays = {"image": image, "outside": [mask.view(np.uint8) for mask in outside]}
    if case.label is not None:
        raw, affine = read_volume(case.label)
        affines = (*affines, affine)
        if raw.shape != image[0].shape:
            raise InputError(f"{case.label}: found shape {raw.shape}, expected {image[0].shape}, as the image has.")
        try:
            arrays["label"] = [labels.to_classes(raw)]
        except InputError as error:
            raise InputError(f"{case.label}: {error}") from error
    if any(not np.array_equal(affine, own) for affine in affines):
        _require_one_place(case)
    body = ~reduce(np.logical_and, outside)
    if options.orientation is not None:
        turn = ornt_transform(io_orientation(own), axcodes2ornt(options.orientation))
        own = own @ inv_ornt_aff(turn, body.shape)
        body = apply_orientation(body, turn)
        arrays = {name: [apply_orientation(array, turn) for array in group] for name, group in arrays.items()}
    shape, scan = body.shape, own
    if options.spacing is not None:
        shape, scan = covering_grid(shape, own, options.spacing)
    box: tuple[slice, ...] = (slice(None),) * 3
    start = np.zeros(3, dtype=np.int64)
    if options.crop and (found := bounds(body)) is not None:
        first, last = covering_box(*found, own, scan)
        start = np.maximum(first - options.margin, 0)
        box = tuple(slice(low, high) for low, high in zip(start, last + 1 + options.margin, strict=True))
    volumes = {
        name: _stacked(group, box if scan is own else ..., np.float32 if name == "image" else np.uint8)
        for name, group in arrays.items()
    }
    if scan is not own:
        every = (slice(None), *box)
        for name, volume in volumes.items():
            volumes[name] = resampled(volume, own, shape, scan, nearest=name != "image")[every].clone()
    result, inside = volumes["image"], ~volumes["outside"].view(torch.bool)
    if options.intensity is not None:
        levels = [background.is_level for background in backgrounds]
        result = options.intensity.in_order(result, inside, levels)
    return PreparedVolumes(
        image=result,
        label=volumes.get("label"),
        mask=reduce(torch.logical_or, inside)[None],
        affine=scan @ from_matvec(np.eye(3), start),
    )


def _exact(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns an array as float32, or as small integers that float32 represents exactly and that take less memory."""
    return array if array.dtype.kind in "iu" and array.dtype.itemsize < 4 else np.asarray(array, dtype=np.float32)


def _stacked(arrays: Sequence[npt.NDArray[Any]], box: Any, dtype: Any) -> Tensor:
    """Returns a box of arrays (X, Y, Z) as (C, X, Y, Z), with x fastest in memory, as in files."""
    return torch.from_numpy(np.stack([array[box].T for array in arrays], dtype=dtype)).permute(0, 3, 2, 1)


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
