"""Writes a cohort once: reuses a complete one, continues an incomplete one, and overwrites only on request."""

import json
import shutil
from pathlib import Path
from typing import Any

from riskft.errors import InputError, refuse
from riskft.files import write_json
from riskft.phantom.anatomy import load_template
from riskft.phantom.grid import Grid
from riskft.phantom.layouts import CohortPaths, fets_id, iseg_id, paths_in, subject_files, write_fets, write_iseg
from riskft.phantom.subject import healthy, patient
from riskft.progress import track

VERSION = 1  #: Raise it when the same options give other files.
RECORD = "cohort.json"  #: Written last, when the cohort is complete.
MARKER = ".phantom-in-progress"  #: Written first, when a cohort is begun.
MIN_SPACING, MAX_SPACING = 1.0, 4.0  #: From the template's resolution to the voxels of the smallest tumours.


def write_cohort(
    out: Path, subjects: int = 14, seed: int = 0, spacing: float = 2.0, *, overwrite: bool = False
) -> CohortPaths:
    """Writes the phantom cohort, or reuses an existing one.

    ``out/fets`` holds patients with gliomas (t1, t1ce, t2, flair, seg; NIfTI), ``out/iseg`` the same number of other
    people's healthy brains (T1, T2, label; Analyze 7.5), ``out/cohort.json`` the options. The same options always give
    the same files; a subject does not depend on the number of subjects. Global random states are not touched.

    A cohort with the same options is reused; subjects with missing files, as after a killed run, are written again.
    With ``overwrite``, the folders ``fets`` and ``iseg`` of the other cohort are removed first.

    Args:
        out: Folder of the cohort: new, empty, or of an earlier call.
        subjects: Number of patients, and of healthy brains.
        seed: At least 0.
        spacing: Isotropic voxel size in mm, 1 to 4.
        overwrite: Replace a phantom cohort with other options. Other folders are never touched.

    Returns:
        The roots of the two layouts.

    Raises:
        InputError: If an option is out of range, ``out`` holds something else, or nilearn is not installed.
    """
    options = {"subjects": subjects, "seed": seed, "spacing": float(spacing)}
    _check_options(subjects, seed, spacing)
    paths = paths_in(out)
    _check_folder(out, options, overwrite)
    todo = [number for number in range(1, subjects + 1) if any(_missing(paths, number))]
    if todo or not (out / RECORD).exists():
        _write_cohort(out, options, todo)
    return paths


def _check_options(subjects: int, seed: int, spacing: float) -> None:
    problems = []
    if not 1 <= subjects <= 999:
        problems.append(f"subjects: expected 1 to 999, got {subjects}")
    if seed < 0:
        problems.append(f"seed: expected at least 0, got {seed}")
    if not MIN_SPACING <= spacing <= MAX_SPACING:
        problems.append(f"spacing: expected {MIN_SPACING} to {MAX_SPACING} mm, got {spacing}")
    refuse("The phantom cohort cannot be made with these options:", problems)


def _check_folder(out: Path, options: dict[str, Any], overwrite: bool) -> None:
    """Makes sure that ``out`` holds only a cohort with these options, or raises InputError."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder for the phantom cohort.")
    found = _recorded(out)
    if found is None:
        if not out.exists() or all(path.name.startswith(".") for path in out.iterdir()):
            return
        raise InputError(
            f"{out} is not empty and holds no phantom cohort: give another folder, or an empty one. "
            "--overwrite replaces only phantom cohorts."
        )
    if found == {**options, "version": VERSION}:
        return
    if not overwrite:
        was = ", ".join(f"{key} {value}" for key, value in found.items())
        wanted = ", ".join(f"{key} {value}" for key, value in {**options, "version": VERSION}.items())
        raise InputError(
            f"{out} holds a phantom cohort with other options ({was}; wanted: {wanted}): "
            "use --overwrite to replace it, or give another folder."
        )
    if (out / RECORD).exists():
        (out / RECORD).replace(out / MARKER)  # so that a killed removal leaves an incomplete cohort
    for root in (paths_in(out).fets, paths_in(out).iseg):
        if root.exists():
            shutil.rmtree(root)
    (out / MARKER).unlink()


def _recorded(out: Path) -> dict[str, Any] | None:
    """Returns the options of a folder's complete or incomplete cohort; None if there is none."""
    for name in (RECORD, MARKER):
        try:
            found = json.loads((out / name).read_text(encoding="utf-8"))
            return {**found["phantom"]}
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError):
            return None
    return None


def _missing(paths: CohortPaths, number: int) -> tuple[bool, bool]:
    """Returns whether a file of the patient, and of the healthy brain, is missing."""
    patient_files, healthy_files = subject_files(paths, number)
    return not all(file.is_file() for file in patient_files), not all(file.is_file() for file in healthy_files)


def _write_cohort(out: Path, options: dict[str, Any], todo: list[int]) -> None:
    """Writes the marker, the missing subjects and the record."""
    phantom = {**options, "version": VERSION}
    write_json(out / MARKER, {"phantom": phantom})
    if todo:
        _write_subjects(paths_in(out), Grid(options["spacing"]), int(options["seed"]), todo)
    numbers = range(1, int(options["subjects"]) + 1)
    names = [{"fets": fets_id(number), "iseg": iseg_id(number)} for number in numbers]
    write_json(out / RECORD, {"phantom": phantom, "subjects": names})
    (out / MARKER).unlink(missing_ok=True)


def _write_subjects(paths: CohortPaths, grid: Grid, seed: int, todo: list[int]) -> None:
    template = load_template(grid.spacing)
    for number in track(todo, len(todo), "Writing the phantom cohort"):
        patient_missing, healthy_missing = _missing(paths, number)
        if patient_missing:
            write_fets(paths.fets, number, patient(template, grid, seed, number), grid)
        if healthy_missing:
            write_iseg(paths.iseg, number, healthy(template, grid, seed, number), grid)
