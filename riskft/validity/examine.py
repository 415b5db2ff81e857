"""Scores all test cases of a pair of runs."""

from pathlib import Path

from riskft.progress import track
from riskft.validity.cases import Examiner
from riskft.validity.maps import write_maps
from riskft.validity.opening import OpenRunPair
from riskft.validity.outcomes import NEGATIVE_TRANSFER, ClassVolumes
from riskft.validity.scores import PredictorScore, Voxels, pooled_scores, score_all
from riskft.validity.table import Key, RunResult


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
