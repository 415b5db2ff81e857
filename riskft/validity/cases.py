"""Examines the test cases of a pair of runs: scores voxels, and finds the outcomes in the scans' geometry."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.memory import give_back
from riskft.data.io.native import native_grid, to_native
from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.evaluation.cases import native_label, native_segmentation, spacing_of, voxel_ml
from riskft.progress import track
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.leep import conditional_from_joint, hardness
from riskft.validity.maps import NativeMaps, write_maps
from riskft.validity.opening import OpenRunPair
from riskft.validity.outcomes import NEGATIVE_TRANSFER, ClassVolumes, class_volumes, outcome_map, targets
from riskft.validity.predictors import boundary_distance, predictors, region
from riskft.validity.scores import PredictorScore, Voxels, pooled_scores, score_all
from riskft.validity.table import Key, RunResult


@dataclass(frozen=True)
class ExaminedCase:
    """The results of a case."""

    subject: str  #: The case.
    voxels: Voxels  #: Predictors and targets of the scored voxels, on the prepared grid.
    volumes: list[ClassVolumes]  #: By class, on the scan's own grid, against the label on disk.
    maps: NativeMaps | None  #: Both maps, if they are wanted.


class Examiner:
    """Examines the test cases of a pair of runs, one at a time; see ``predictors.region`` for ``margin``."""

    def __init__(self, pair: OpenRunPair, margin: int, maps: bool) -> None:
        self.pair = pair
        self.margin = margin
        self.maps = maps
        pair.run.load_weights()
        pair.scratch.load_weights()
        pair.source.network.to(pair.run.device)
        self._infer: Callable[[Tensor], Tensor] = pair.source.predictor()

    @torch.no_grad()
    def examine(self, case: PreparedCase) -> ExaminedCase:
        """Returns the results of a case."""
        pair = self.pair
        states = source_probabilities(case, self._infer, pair.run.device)[0].cpu()
        with files_named(case.subject, case.files):
            target = counted_target(case, pair.use_mask, torch.device("cpu"))
        volume = read_case(case)
        finetuned, scratch = (run.probabilities(volume.image) for run in (pair.run, pair.scratch))
        chosen = region(target, self.margin)
        classes = target[chosen]
        distance = boundary_distance(target, spacing_of(volume.affine))[chosen]
        voxels = Voxels(
            predictors(states[:, chosen], classes, distance, pair.joint, pair.dataset),
            targets(classes, finetuned.argmax(0)[chosen], scratch.argmax(0)[chosen]),
        )
        give_back()
        truth = native_label(case.case, pair.run.data.labels)
        native = (native_segmentation(found, volume.affine, case.case).classes for found in (finetuned, scratch))
        outcome = outcome_map(truth, *native)
        size = voxel_ml(native_grid(case.case)[1])
        volumes = class_volumes(truth, outcome, pair.run.data.class_names, size)
        maps = None
        if self.maps:
            values = hardness(states[None], target[None], conditional_from_joint(pair.joint), IGNORE_INDEX)
            maps = NativeMaps(outcome, to_native(values, volume.affine, case.case)[0].numpy())
        return ExaminedCase(case.subject, voxels, volumes, maps)


def examine(pair: OpenRunPair, margin: int, folder: Path | None) -> RunResult:
    """Examines the test cases one at a time, keeps only their scored voxels, and writes maps if a folder is given."""
    examiner = Examiner(pair, margin, maps=folder is not None)
    cases = pair.run.data.prepared("test")
    scores: dict[str, dict[Key, PredictorScore]] = {}
    volumes: dict[str, list[ClassVolumes]] = {}
    kept: list[Voxels] = []
    for case in track(cases, len(cases), f"Test cases of seed {pair.pair.run.seed}"):
        found = examiner.examine(case)
        if folder is not None and found.maps is not None:
            write_maps(folder, case.case, found.maps)
        scores[case.subject] = score_all(found.voxels)
        volumes[case.subject] = found.volumes
        kept.append(found.voxels)
    pooled, curves = pooled_scores(kept, NEGATIVE_TRANSFER)
    return RunResult(pair.pair.run, scores, pooled, curves, volumes)
