"""The layouts of FeTS and iSeg: names, orientations and formats. Files are written atomically."""

import gzip
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from riskft.files import atomic_path
from riskft.phantom.grid import Grid
from riskft.phantom.subject import PhantomSubject

IntegerVolume = npt.NDArray[np.int16] | npt.NDArray[np.uint8]

MODALITIES = ("t1", "t1ce", "t2", "flair")  #: Modalities of the patients, in the order of FeTS.

#: Label values of iSeg: background, CSF, grey matter, white matter.
ISEG_LABELS = np.array([0, 10, 150, 250], dtype=np.uint8)

_MNI = 4  #: NIfTI's code for the MNI 152 space.


@dataclass(frozen=True)
class CohortPaths:
    """The folders of a cohort."""

    fets: Path  #: Root of the patients, in the layout of FeTS 2021 and BraTS.
    iseg: Path  #: Root of the healthy brains, in the layout of iSeg 2017.


def paths_in(out: Path) -> CohortPaths:
    """Returns the roots inside a cohort's folder."""
    return CohortPaths(fets=out / "fets", iseg=out / "iseg")


def fets_id(number: int) -> str:
    """Returns the identifier of a patient, numbered from 1."""
    return f"FeTS21_Phantom_{number:03d}"


def iseg_id(number: int) -> str:
    """Returns the identifier of a healthy brain, numbered from 1."""
    return f"subject-{number}"


def fets_files(root: Path, number: int) -> dict[str, Path]:
    """Returns a patient's files: the modalities, then ``seg``."""
    name = fets_id(number)
    return {kind: root / name / f"{name}_{kind}.nii.gz" for kind in (*MODALITIES, "seg")}


def iseg_files(root: Path, number: int) -> dict[str, Path]:
    """Returns the header files of a healthy brain: ``T1``, ``T2``, ``label``; the ``.img`` files are beside them."""
    return {kind: root / f"{iseg_id(number)}-{kind}.hdr" for kind in ("T1", "T2", "label")}


def subject_files(paths: CohortPaths, number: int) -> tuple[list[Path], list[Path]]:
    """Returns all files of the patient and of the healthy brain with a number."""
    headers = list(iseg_files(paths.iseg, number).values())
    patient = list(fets_files(paths.fets, number).values())
    return patient, [file for header in headers for file in (header.with_suffix(".img"), header)]


def write_fets(root: Path, number: int, subject: PhantomSubject, grid: Grid) -> None:
    """Writes a patient: NIfTI, int16 images and uint8 labels, axes towards left, back and top (LPS) as in FeTS."""
    files = fets_files(root, number)
    affine = grid.affine @ _flip(grid, axes=(0, 1))
    volumes: dict[str, IntegerVolume] = {**subject.images, "seg": subject.labels}
    for kind, data in volumes.items():
        image = nib.Nifti1Image(np.ascontiguousarray(data[::-1, ::-1]), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code=_MNI)
        image.set_qform(affine, code=_MNI)
        # without a time stamp in the gzip header, so that equal cohorts have equal files
        _write(files[kind], gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def write_iseg(root: Path, number: int, subject: PhantomSubject, grid: Grid) -> None:
    """Writes a healthy brain: Analyze 7.5, int16 images and uint8 labels.

    The format stores only voxel sizes. Readers assume that the first axis points to the left and the origin is in the
    middle, so the data are written in that orientation (LAS); the shift to MNI space is lost.
    """
    files = iseg_files(root, number)
    volumes: dict[str, IntegerVolume] = {**subject.images, "label": ISEG_LABELS[subject.labels]}
    for kind, data in volumes.items():
        image = nib.AnalyzeImage(np.ascontiguousarray(data[::-1]), None)
        image.header.set_zooms((grid.spacing,) * 3)
        parts = {name: BytesIO() for name in ("image", "header")}
        for name, stream in parts.items():
            image.file_map[name].fileobj = stream
        image.to_file_map()
        _write(files[kind].with_suffix(".img"), parts["image"].getvalue())
        _write(files[kind], parts["header"].getvalue())


def _flip(grid: Grid, axes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Returns the matrix, 4 x 4, from the voxel indices of reversed axes to the original ones."""
    flip = np.eye(4)
    for axis in axes:
        flip[axis, axis], flip[axis, 3] = -1, grid.shape[axis] - 1
    return flip


def _write(file: Path, content: bytes) -> None:
    with atomic_path(file) as temporary:
        temporary.write_bytes(content)
