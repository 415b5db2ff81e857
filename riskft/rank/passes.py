"""One pass of a source over the labelled training cases: class-balanced voxels, one file per source and case."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.files import fingerprint, json_or_none, safe_name, write_json
from riskft.progress import track
from riskft.rank.opening import OpenSource
from riskft.risk.forward import counted_target, source_parts
from riskft.source.features import features_at, with_coordinates
from riskft.source.network import SourceNetwork
from riskft.source.windows import logits_in_parts
from riskft.transferability.samples import VoxelSample, chosen_voxels, read_sample, write_sample

log = logging.getLogger(__name__)
VERSION = 1  #: Of what a pass keeps.


@dataclass(frozen=True)
class Passes:
    """The stored passes of all sources over all cases.

    A cell is found by a fingerprint of everything that it depends on, so that another source costs only its own column,
    another case only its own row, and cells can be computed in any order and place.
    """

    folder: Path
    per_class: int = 200  #: Voxels of each class of a case, at most.
    seed: int = 0  #: Which voxels are drawn.

    def column(self, opened: OpenSource) -> Path:
        """Returns the folder of a source's cells."""
        parts = {"version": VERSION, "per class": self.per_class, "seed": self.seed, **opened.inputs}
        return self.folder / fingerprint(parts)

    def cell(self, opened: OpenSource, case: PreparedCase) -> Path:
        """Returns the file of a source's pass over a case."""
        return self.column(opened) / f"{safe_name(case.subject)}-{case.key[:12]}.npz"

    def make_cell(self, opened: OpenSource, case: PreparedCase) -> None:
        """Runs a source over a case and writes the cell; needs nothing but the two, so that an array job can do it."""
        start, path = time.monotonic(), self.cell(opened, case)
        sample = voxel_sample(opened, case, self.per_class, self.seed)
        write_json(path.with_suffix(".json"), {"subject": case.subject, "seconds": time.monotonic() - start})
        write_sample(path, sample)  # last, because a cell with it is complete

    def run(self, opened: OpenSource) -> tuple[list[VoxelSample], float]:
        """Makes a source's missing cells and returns its column: the samples in order, and the seconds they took.

        Raises InputError if the source gives NaN or infinite values.
        """
        cases = opened.data.prepared("train")
        missing = [case for case in cases if not self.cell(opened, case).is_file()]
        if missing:
            write_json(self.column(opened) / "source.json", {"name": opened.candidate.name, **opened.inputs})
            opened.source.network.to(opened.device)
            for case in track(missing, len(missing), f"Pass of {opened.candidate.name}"):
                self.make_cell(opened, case)
            opened.source.network.cpu()  # the race needs the memory
            if opened.device.type == "cuda":
                torch.cuda.empty_cache()
        else:
            log.info("Pass of %s: %d cases reused from %s", opened.candidate.name, len(cases), self.column(opened))
        paths = [self.cell(opened, case) for case in cases]
        details = [json_or_none(path.with_suffix(".json")) or {} for path in paths]
        return [read_sample(path) for path in paths], sum(float(each.get("seconds", 0)) for each in details)


@torch.no_grad()
def voxel_sample(opened: OpenSource, case: PreparedCase, per_class: int, seed: int) -> VoxelSample:
    """Returns a case's class-balanced voxels as a source sees them; memory holds one volume at a time.

    All sources get the same voxels of a case if it has the same grid for them. Raises InputError if a value is not
    finite.
    """
    source = opened.source
    target = counted_target(case, opened.use_mask)
    generator = torch.Generator().manual_seed(int(fingerprint({"case": case.subject, "seed": seed})[:15], 16))
    flat, weights = chosen_voxels(target, per_class, generator)
    voxels = torch.from_numpy(np.stack(np.unravel_index(flat.numpy(), target.shape), 1))
    with features_at(source.network, opened.places, voxels) as features:
        probabilities = _probabilities(opened, case, voxels)
    sample = VoxelSample(case.subject, target.flatten()[flat].long(), weights, probabilities, features.values)
    found = [*sample.features.values(), *([] if probabilities is None else [probabilities])]
    if not all(torch.isfinite(values).all() for values in found):
        raise InputError(f"It gives NaN or infinite values for {case.subject}; check its weights and the volume.")
    return sample


def _probabilities(opened: OpenSource, case: PreparedCase, voxels: Tensor) -> Tensor | None:
    """Runs the source over a case and returns its probabilities at the voxels, (N, Z), or None without a head."""
    source = opened.source
    if not opened.has_head:
        for _ in source_parts(case, lambda image: _only_run(source, with_coordinates(image)), opened.device):
            pass
        return None
    predict = source.predictor()
    found: list[Tensor] = []
    order: list[Tensor] = []
    done = 0
    for planes in source_parts(case, lambda image: predict(with_coordinates(image)), opened.device):
        inside = ((voxels[:, 0] >= done) & (voxels[:, 0] < done + len(planes))).nonzero().squeeze(1)
        x, y, z = voxels[inside].to(planes.device).unbind(1)
        found.append(planes[x - done, :, y, z].cpu())
        order.append(inside)
        done += len(planes)
    return torch.cat(found)[torch.cat(order).argsort()]


def _only_run(source: SourceNetwork, image: Tensor) -> Iterator[Tensor]:
    """Yields the parts of a network's result whose values mean nothing, because its head is not trained."""
    for part in logits_in_parts(source.inferer, image, lambda patch: source.read(source.network, patch)[0]):
        yield part[0]
