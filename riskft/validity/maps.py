"""Maps of a case as NIfTI files that a viewer overlays on the scan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from riskft.data.io.native import native_grid, reference_image
from riskft.data.io.volumes import write_nifti
from riskft.data.records import Case
from riskft.files import safe_name
from riskft.validity.outcomes import LEGEND
from riskft.validity.pairs import RunPair

HARDNESS = "transfer hardness in nats, 0 outside"


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
