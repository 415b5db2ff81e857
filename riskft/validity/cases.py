"""Examines the test cases of a pair of runs: scores voxels, and finds the outcomes in the scans' geometry."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from riskft.data.io.damage import files_named
from riskft.data.io.memory import give_back
from riskft.data.io.native import native_grid, reference_image, to_native
from riskft.data.io.volumes import write_nifti
from riskft.data.labels import IGNORE_INDEX
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case
from riskft.evaluation.cases import native_label, native_segmentation, spacing_of, voxel_ml
from riskft.files import safe_name
from riskft.progress import track
from riskft.risk.forward import Infer, counted_target, source_probabilities
from riskft.risk.leep import conditional_from_joint, hardness
from riskft.validity.opening import OpenRunPair
from riskft.validity.pairs import RunPair
from riskft.validity.predictors import boundary_distance, predictors, region
from riskft.validity.scores import (
    LEGEND,
    NEGATIVE_TRANSFER,
    ClassVolumes,
    PredictorScore,
    Voxels,
    class_volumes,
    outcome_map,
    pooled_scores,
    score_all,
    targets,
)
from riskft.validity.table import Key, RunResult

HARDNESS = "transfer hardness in nats, 0 outside"


def examine(pair: OpenRunPair, margin: int, folder: Path | None) -> RunResult:
    """Examines the test cases one at a time, keeps only their scored voxels, and writes maps if a folder is given."""
    source = pair.loaded()
    cases = pair.run.data.prepared("test")
    scores: dict[str, dict[Key, PredictorScore]] = {}
    volumes: dict[str, list[ClassVolumes]] = {}
    kept: list[Voxels] = []
    for case in track(cases, len(cases), f"Test cases of seed {pair.pair.run.seed}"):
        voxels, volumes[case.subject] = examined(pair, source, case, margin, folder)
        scores[case.subject] = score_all(voxels)
        kept.append(voxels)
    pooled, curves = pooled_scores(kept, NEGATIVE_TRANSFER)
    return RunResult(pair.pair.run, scores, pooled, curves, volumes)


@torch.no_grad()
def examined(
    pair: OpenRunPair, source: Infer, case: PreparedCase, margin: int, folder: Path | None
) -> tuple[Voxels, list[ClassVolumes]]:
    """Runs all networks on a case; writes its maps if a folder is given.

    Returns predictors and targets of the scored voxels (see ``predictors.region``) on the prepared grid, and the
    volumes by class on the scan's own grid, against the label on disk.
    """
    states = source_probabilities(case, source, pair.run.device)[0].cpu()
    with files_named(case.subject, case.files):
        target = counted_target(case, pair.use_mask).long()
    volume = read_case(case)
    finetuned, scratch = (run.probabilities(volume.image) for run in (pair.run, pair.scratch))
    chosen = region(target, margin)
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
    if folder is not None:
        values = hardness(states[None], target[None], conditional_from_joint(pair.joint), IGNORE_INDEX)
        write_maps(folder, case.case, outcome, to_native(values, volume.affine, case.case)[0].numpy())
    return voxels, class_volumes(truth, outcome, pair.run.data.class_names, voxel_ml(native_grid(case.case)[1]))


def map_folder(out: Path, pair: RunPair, alone: bool) -> Path:
    """Returns where a pair's maps go: the output folder, or one folder per run in it if there are several pairs."""
    parts = (pair.run.study, pair.run.method, f"seed={pair.run.seed}")
    return out if alone else out.joinpath(*map(safe_name, parts))


def map_paths(folder: Path, subject: str) -> tuple[Path, Path]:
    """Returns the files of a case's outcome and hardness."""
    name = safe_name(subject)
    return folder / f"{name}_negative_transfer.nii.gz", folder / f"{name}_hardness.nii.gz"


def existing_maps(folder: Path, subjects: Sequence[str]) -> list[str]:
    """Returns the files that maps of the cases would overwrite."""
    return [str(path) for subject in subjects for path in map_paths(folder, subject) if path.exists()]


def write_maps(folder: Path, case: Case, outcome: npt.NDArray[np.uint8], nats: npt.NDArray[np.float32]) -> None:
    """Writes outcome and hardness, (X, Y, Z), in the scan's own geometry; the header says what the values mean."""
    _, affine = native_grid(case)
    first, second = map_paths(folder, case.subject)
    write_nifti(first, outcome, affine, reference_image(case), LEGEND)
    write_nifti(second, nats, affine, reference_image(case), HARDNESS)
