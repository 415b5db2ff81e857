"""Tiny real volumes through the real cache, and a frozen source network without training."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache, PreparedCase
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.risk.mapping import RiskMapping
from riskft.risk.phase import RiskPhase
from riskft.risk.ranks import Ranks
from riskft.risk.source_pass import SourcePass
from riskft.risk.store import RiskStore

LABELS = LabelMap({"rim": [1], "core": [4]}, ignore=[9])
NAMES = list(LABELS.names)
SHAPE = (11, 9, 7)
DEFAULT = RiskMapping()  # made once: jsonargparse's lazy defaults look through the whole call stack
Array = np.ndarray[Any, np.dtype[Any]]


def affine(codes: str = "RAS", spacing: Sequence[float] = (1.2, 0.9, 2.5), degrees: float = 0.0) -> Array:
    """An affine of the given orientation and voxel size, turned about the z axis, with an offset."""
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    axes = nib.orientations.axcodes2ornt(codes)
    reorder = np.zeros((3, 3))
    for voxel_axis, (world_axis, sign) in enumerate(axes):
        reorder[int(world_axis), voxel_axis] = sign
    result = np.eye(4)
    result[:3, :3] = rotation @ reorder @ np.diag(spacing)
    result[:3, 3] = 17.5, -23.25, 41.0
    return result


def write_case(
    folder: Path, subject: str, seed: int, geometry: Array | None = None, shape: Sequence[int] = SHAPE
) -> Case:
    """Writes two modalities and a label: a head in empty space, two classes in it, and a region to ignore."""
    rng = np.random.default_rng(seed)
    geometry = affine() if geometry is None else geometry
    folder.mkdir(parents=True, exist_ok=True)
    label = np.zeros(shape, np.uint8)
    label[3:7, 3:6, 2:5] = 1
    label[4:6, 4:5, 3:4] = 4
    label[7:9, 5:7, 2:4] = 9
    files = {}
    for channel, name in enumerate(("t1", "flair")):
        volume = np.zeros(shape, np.float32)
        volume[2:-2, 2:-1, 1:-1] = rng.normal(100 + 20 * channel, 10, volume[2:-2, 2:-1, 1:-1].shape)
        volume += np.float32(30 * (channel + 1)) * np.isin(label, (1, 4))
        files[name] = folder / f"{subject}_{name}.nii.gz"
        save(files[name], volume.clip(0), geometry)
    save(folder / f"{subject}_seg.nii.gz", label, geometry)
    return Case(subject, files, folder / f"{subject}_seg.nii.gz")


def save(path: Path, array: Array, geometry: Array) -> None:
    image = nib.Nifti1Image(array, geometry)
    image.header.set_xyzt_units("mm")
    image.set_qform(geometry, code=1)
    image.set_sform(geometry, code=2)
    nib.save(image, path)


def prepare(cache: Path, cases: Sequence[Case], **options: Any) -> list[PreparedCase]:
    return PreparedCache(cache, LABELS, Preprocessing(**options)).prepare(cases)


class TinySource(nn.Module):
    """A frozen network with |Z| = 4 classes that counts its forward passes.

    A sharp one gives probabilities of all magnitudes, whose sums depend on the order in the last bit.
    """

    def __init__(self, seed: int = 0, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        generator = torch.Generator().manual_seed(seed)
        self.convolution = nn.Conv3d(2, 4, 3, padding=1)
        for parameter in self.convolution.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.requires_grad_(False)
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.convolution(image)
        return logits

    def infer(self, image: Tensor) -> Tensor:
        logits: Tensor = SimpleInferer()(image, self)
        return (self.sharpness * logits.float()).softmax(1)


def store_of(
    root: Path,
    train: Sequence[PreparedCase],
    others: Sequence[PreparedCase] = (),
    mapping: RiskMapping | None = None,
    source: str = "digest-a",
) -> RiskStore:
    inputs = {
        "source": source,
        "training data": {case.subject: case.key for case in train},
        "validation data": {case.subject: case.key for case in others},
        "classes": NAMES,
    }
    return RiskStore(root, inputs, (mapping or DEFAULT).describe())


def pass_of(store: RiskStore, infer: Any, use_mask: bool = False, **ranks: Any) -> SourcePass:
    return SourcePass(store, infer, len(NAMES), use_mask=use_mask, ranks=Ranks(**ranks))


def phase_of(
    store: RiskStore, infer: Any, mapping: RiskMapping | None = None, keep_eep: bool = False, **options: Any
) -> RiskPhase:
    return RiskPhase(pass_of(store, infer, **options), mapping or DEFAULT, keep_eep=keep_eep)


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """All files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file()
    }


class ThreadGather:
    """Collects objects over threads as ``gather_objects`` does over processes."""

    def __init__(self, size: int) -> None:
        self.items: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)

    def of(self, rank: int) -> Callable[[Any], list[Any]]:
        def gather(item: Any, what: str) -> list[Any]:
            self.items[rank] = item
            self.barrier.wait()
            result = list(self.items)
            self.barrier.wait()
            return result

        return gather


def run_ranks(size: int, work: Callable[[int, Any], Any]) -> list[Any]:
    """Returns what each rank's work gives, given the rank and how it gathers."""
    gather = ThreadGather(size)
    results: list[Any] = [None] * size

    def keep(rank: int) -> None:
        results[rank] = work(rank, gather.of(rank))

    threads = [threading.Thread(target=keep, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
