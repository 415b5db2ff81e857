"""Headers that programs read differently: who takes them for what, and what is a fault."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_cohort import rotated_affine

from riskft.data.check.data_set import CheckReport, FaultKind, WarningKind, check
from riskft.data.labels import LabelMap
from riskft.data.records import Case

SHAPE = (12, 14, 10)
TURNED = rotated_affine((1.0, 1.5, 2.0), codes="RAS")
PLAIN = np.diag([1.0, 1.5, 2.0, 1.0])


def save(path: Path, dtype: type, affine: np.ndarray = TURNED, **fields: object) -> Path:
    """Writes noise (or a label), qform and sform alike, then header fields as they are, without nibabel's repairs."""
    voxels = np.random.default_rng(0).integers(0, 2 if dtype is np.uint8 else 900, SHAPE).astype(dtype)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1, strip_shears=True)
    image.set_sform(affine, 1)
    nib.save(image, path)
    if fields:
        with path.open("rb") as stream:
            header = nib.Nifti1Header.from_fileobj(stream, check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + path.read_bytes()[len(header.binaryblock) :])
    return path


def checked(folder: Path, image: dict[str, object], label: dict[str, object] | None = None) -> CheckReport:
    """Checks a case whose label has the image's header, unless it is given one of its own."""
    label = image if label is None else label
    case = Case("a", {"t1": save(folder / "t1.nii", np.float32, **image)}, save(folder / "seg.nii", np.uint8, **label))
    return check({"val": [case]}, LabelMap({"lesion": [1]}))


SHEARED = TURNED.copy()
SHEARED[0, 1] += 0.3
MICROMETRES = np.diag([400.0, 400.0, 800.0, 1.0])
ASSUMED = np.array([[-1, 0, 0, 5.5], [0, 1.5, 0, -9.75], [0, 0, 2, -9], [0, 0, 0, 1.0]])  # centred, x to the left
ELSEWHERE = {"quatern_b": 0.0, "quatern_c": 0.0, "quatern_d": 0.0, "qoffset_x": 40.0}

WARNED = {
    "qform taken": (
        {**ELSEWHERE, "sform_code": 2},
        ["the qform places a corner", "riskft reads the first voxel to lie at (11, -7, 23) mm", "SimpleITK, ITK-SNAP"],
    ),
    "qform beside": (
        {**ELSEWHERE},
        ["the qform places a corner", "programs that prefer the qform read the first voxel to lie at (40, -7, 23) mm"],
    ),
    "no codes": (
        {"qform_code": 0, "sform_code": 0},
        ["neither the qform nor the sform", "riskft reads axes LAS", "3D Slicer read axes LPS"],
    ),
    "sheared": (
        {"affine": SHEARED, "qform_code": 0},
        ["sheared by", "riskft reads a spacing of", "SimpleITK, ITK-SNAP and 3D Slicer refuse to open it"],
    ),
    "micrometres": (
        {"affine": MICROMETRES, "xyzt_units": 3},
        ["unit is micrometres", "reads a spacing of 400x400x800 mm", "3D Slicer read a spacing of 0.4x0.4x0.8 mm"],
    ),
    "metres": (
        {"affine": np.diag([0.0004, 0.0004, 0.0008, 1.0]), "xyzt_units": 1},
        ["unit is metres", "reads a spacing of 0.0004x0.0004x0.0008 mm", "read a spacing of 0.4x0.4x0.8 mm"],
    ),
    "pixdim": (
        {"pixdim": [1, 3, 3, 3, 1, 1, 1, 1]},
        ["the spacing is 3x3x3 mm in pixdim and 1x1.5x2 mm in the sform", "3D Slicer read a spacing of 3x3x3 mm"],
    ),
    "negative": (
        {"pixdim": [1, -1, 1.5, 2, 1, 1, 1, 1], "sform_code": 0},
        ["the spacing in pixdim is negative (-1x1.5x2 mm)", "riskft reads axes RAS", "read axes LAS"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*WARNED])
def test_headers_that_programs_read_differently(tmp_path: Path, name: str) -> None:
    header, words = WARNED[name]
    report = checked(tmp_path, header)
    assert not report.faults
    (warning,) = [found for found in report.warnings if found.kind is WarningKind.HEADER]
    assert warning.message.startswith(f"{tmp_path / 't1.nii'}: ")
    assert warning.message.endswith("; the same in seg.nii. Correct the header.")
    assert all(word in warning.message for word in words)
    assert "\n" not in str(warning)


@pytest.mark.parametrize(
    ("image", "label", "programs"),
    [
        # the image's two forms differ, and the label has one of them
        ({**ELSEWHERE, "sform_code": 2}, {"qform_code": 0}, "SimpleITK, ITK-SNAP and 3D Slicer"),
        ({**ELSEWHERE}, {"qform_code": 0}, "programs that prefer the qform"),
        ({"affine": MICROMETRES, "xyzt_units": 3}, {"affine": MICROMETRES}, "SimpleITK, ITK-SNAP and 3D Slicer"),
        ({}, {"pixdim": [1, 2, 1.5, 2, 1, 1, 1, 1]}, "SimpleITK, ITK-SNAP and 3D Slicer"),
        # riskft reads the label, whose header says nothing, as the image
        (
            {"affine": ASSUMED},
            {"affine": ASSUMED, "qform_code": 0, "sform_code": 0},
            "SimpleITK, ITK-SNAP and 3D Slicer",
        ),
    ],
)
def test_files_that_only_other_programs_place_apart_are_a_fault(
    tmp_path: Path, image: dict[str, object], label: dict[str, object], programs: str
) -> None:
    (fault,) = checked(tmp_path, image, label).faults
    assert (fault.kind, fault.path) == (FaultKind.AFFINE, tmp_path / "seg.nii")
    assert f"seg.nii: {programs} place a corner" in fault.message
    assert "from that of t1.nii, though riskft places them together" in fault.message


def test_files_that_riskft_places_apart_are_one_fault(tmp_path: Path) -> None:
    (fault,) = checked(tmp_path, {"affine": PLAIN}, {}).faults
    assert "the affine places a corner" in fault.message


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR"])
@pytest.mark.parametrize("forms", [{}, {"qform_code": 0}, {"sform_code": 0}, {"sform_code": 4}, {"qform_code": 2}])
def test_sound_headers_are_not_warned_of(tmp_path: Path, codes: str, forms: dict[str, object]) -> None:
    turn = nib.orientations.ornt_transform(nib.io_orientation(TURNED), nib.orientations.axcodes2ornt(codes))
    affine = nib.Nifti1Image(np.zeros(SHAPE), TURNED).as_reoriented(turn).affine
    report = checked(tmp_path, {"affine": affine, **forms})
    assert not report.faults
    assert not report.warnings


def test_an_invalid_rotation_leaves_the_sform(tmp_path: Path) -> None:
    report = checked(tmp_path, {"quatern_b": 2.0})
    assert not report.faults


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (0.01, "the voxels are 0.01x0.01x0.01 mm and the volume 0.12x0.14x0.1 mm"),
        (0.5, "the volume 6x7x5 mm"),
        (30.0, "the voxels are 30x30x30 mm"),
        (150.0, "the volume 1800x2100x1500 mm"),
    ],
)
def test_sizes_that_no_body_part_has_are_warned_of(tmp_path: Path, edge: float, words: str) -> None:
    report = checked(tmp_path, {"affine": np.diag([edge, edge, edge, 1.0])})
    (warning,) = report.warnings
    assert warning.kind is WarningKind.SIZE
    assert words in warning.message
    assert warning.message.endswith("Correct the header if its numbers are not in mm.")
    assert not report.faults


@pytest.mark.parametrize("kind", ["NIfTI-2", "bz2", "damaged"])
def test_other_errors_of_simpleitk_are_not_blamed_on_the_header(tmp_path: Path, kind: str) -> None:
    label = save(tmp_path / "seg.nii", np.uint8)
    image = nib.load(save(tmp_path / "plain.nii", np.float32))
    path = tmp_path / ("t1.nii.bz2" if kind == "bz2" else "t1.nii.gz")
    nib.save(nib.Nifti2Image.from_image(image) if kind == "NIfTI-2" else image, path)
    if kind == "damaged":
        content = bytearray(path.read_bytes())
        content[-6] ^= 1  # in the checksum
        path.write_bytes(content)
    report = check({"val": [Case("a", {"t1": path}, label)]}, LabelMap({"lesion": [1]}))
    assert [fault.kind for fault in report.faults] == ([FaultKind.UNREADABLE] if kind == "damaged" else [])
    assert not report.warnings


def test_an_invalid_quaternion(tmp_path: Path) -> None:
    (fault,) = checked(tmp_path, {"quatern_b": 1.01, "quatern_c": 0.0, "sform_code": 0}, {}).faults
    assert "its qform is not a rotation: the quaternion in the header is longer than 1" in fault.message
