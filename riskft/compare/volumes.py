"""Downsampled volumes for the report's viewer: image, risk maps and label of a few cases as bytes."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError
from riskft.files import read_mapping
from riskft.run.folder import RunFolder

EDGE = 96  #: Longest edge in voxels; larger volumes are downsampled.

VolumeArray = npt.NDArray[Any]


@dataclass(frozen=True)
class MappedCase:
    """The files of a case with a risk map."""

    subject: str  #: The case.
    kind: str  #: ``validation`` or ``training``.
    prepared: Path  #: Folder of the preprocessed case.
    hardness: Path  #: File of its hardness.
    weight: Path  #: File of its weights.

    @property
    def complete(self) -> bool:
        """Whether all files exist; caches are deleted or left behind on another machine."""
        files = (self.prepared / "image.nii", self.prepared / "label.nii", self.hardness, self.weight)
        return all(path.is_file() for path in files)


def mapped_cases(folder: Path) -> list[MappedCase]:
    """Returns a run's cases whose maps still exist, validation first; raises InputError if the manifest is broken."""
    run = RunFolder(folder)
    if not run.risk.manifest.is_file() or (store := run.risk.store()) is None:
        return []
    inputs = read_mapping(run.risk.manifest)
    data = run.read_config().get("data")
    given = data.get("cache_dir") if isinstance(data, dict) else None
    # by default the maps are in the cache; otherwise the config says where the cache is
    caches = [store.root.parent, *([Path(given)] if given and isinstance(given, str) else [])]
    cache = next((path for path in caches if (path / "cases").is_dir()), caches[0])
    cases = []
    for kind, name in (("validation", "validation data"), ("training", "training data and preprocessing")):
        for subject, key in _keys(inputs.get(name) or {}, name, run.risk.manifest):
            hardness, weight = store.hardness_path(subject), store.weight_path(subject)
            cases.append(MappedCase(subject, kind, cache / "cases" / key, hardness, weight))
    return [case for case in cases if case.complete]


def _keys(content: object, name: str, manifest: Path) -> list[tuple[str, str]]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content.values()):
        raise InputError(f"{manifest}: {name!r} is {content!r:.60}, expected the key of each case in the cache.")
    return list(content.items())


def mean_hardness(case: MappedCase) -> float:
    """Returns the mean hardness of the foreground in nats; 0 without foreground."""
    label, hardness = (np.asarray(read_volume(path)[0]) for path in (case.prepared / "label.nii", case.hardness))
    inside = (label > 0) & (label != IGNORE_INDEX)
    return float(hardness[inside].mean()) if inside.any() else 0.0


def class_names(folder: Path) -> list[str]:
    """Returns the classes of a run by index, background first."""
    labels = (RunFolder(folder).read_config().get("data") or {}).get("labels") or {}
    return ["background", *(labels.get("classes") or {})]


def viewer_entry(case: MappedCase, title: str, names: list[str]) -> dict[str, Any]:
    """Returns a case's data for the viewer, JSON-serialisable.

    Volumes are in RAS and C order (z fastest), one byte per voxel: a grey value, a map's value scaled from ``low`` to
    ``high``, or a class (255: ignored).
    """
    image, affine = read_volume(case.prepared / "image.nii", channel=0)
    turn = nib.io_orientation(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    turned = [float(spacing[int(np.flatnonzero(turn[:, 0] == axis)[0])]) for axis in range(3)]
    factors = [-(-size // EDGE) for size in nib.apply_orientation(image, turn).shape]

    def small(volume: VolumeArray) -> VolumeArray:
        return coarser(nib.apply_orientation(np.asarray(volume, dtype=np.float32), turn), factors)

    label = nib.apply_orientation(np.asarray(read_volume(case.prepared / "label.nii")[0]), turn)
    pixels = small(image)
    low, high = (float(value) for value in np.percentile(pixels, [1, 99.5]))
    maps = {
        "transfer hardness (nats)": small(read_volume(case.hardness)[0]),
        "weight in the loss": small(read_volume(case.weight)[0]),
    }
    return {
        "title": title,
        "shape": list(pixels.shape),
        "spacing": [step * factor for step, factor in zip(turned, factors, strict=True)],
        "classes": names,
        "image": _bytes(pixels, low, high),
        "label": _encoded(coarser_label(label, factors).astype(np.uint8)),
        "maps": [_map(name, volume) for name, volume in maps.items()],
    }


def coarser(volume: VolumeArray, factors: list[int]) -> VolumeArray:
    """Returns the means of blocks (of shape ``factors``) of voxels, (X, Y, Z); leaves out incomplete ones."""
    x, y, z = (size // factor for size, factor in zip(volume.shape, factors, strict=True))
    a, b, c = factors
    blocks = volume[: x * a, : y * b, : z * c].reshape(x, a, y, b, z, c)
    means: VolumeArray = blocks.mean((1, 3, 5))
    return means


def coarser_label(label: VolumeArray, factors: list[int]) -> VolumeArray:
    """Returns the class at the centre of each block of voxels, on the grid of ``coarser``."""
    x, y, z = (slice(factor // 2, (size // factor) * factor, factor)
               for size, factor in zip(label.shape, factors, strict=True))  # fmt: skip
    middle: VolumeArray = label[x, y, z]
    return middle


def _map(name: str, volume: VolumeArray) -> Mapping[str, Any]:
    low, high = float(volume.min()), max(float(np.percentile(volume, 99.9)), float(volume.min()) + 1e-3)
    return {"name": name, "low": low, "high": high, "data": _bytes(volume, low, high)}


def _bytes(volume: VolumeArray, low: float, high: float) -> str:
    scaled = (volume - low) / max(high - low, 1e-6)
    return _encoded(np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8))


def _encoded(volume: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(np.ascontiguousarray(volume).tobytes()).decode("ascii")
