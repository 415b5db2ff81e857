"""The data check: every fault is found, in one report, and sound data of every kind passes."""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from riskft.data.check import TOLERANCE_MM, CheckReport, FaultKind, check
from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.errors import InputError

SHAPE = (5, 7, 4)
ROTATED = np.array([[1.2, -0.5, 0.0, 10.0], [0.6, 1.0, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
LABELS = LabelMap({"core": [1, 4], "oedema": [2]})


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def label() -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 2:4, 1:3] = 1
    values[3, 2:4, 1:3] = 2
    return values


def save(path: Path, data: np.ndarray, affine: np.ndarray = ROTATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@dataclass
class DataSet:
    """Sound cases on disk, to break."""

    root: Path
    splits: dict[str, list[Case]] = field(default_factory=dict)

    def add(self, subject: str, split: str = "train") -> Case:
        seed = 10 * sum(len(cases) for cases in self.splits.values())
        folder = self.root / subject
        images = {name: save(folder / f"{name}.nii.gz", image(seed + k)) for k, name in enumerate(("t1", "flair"))}
        case = Case(subject, images, save(folder / "seg.nii.gz", label()))
        self.splits.setdefault(split, []).append(case)
        return case

    def check(self, voxels: bool = True) -> CheckReport:
        return check(self.splits, LABELS, voxels=voxels)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def set_header(path: Path, **fields: object) -> None:
    """Writes header fields as they are, without nibabel's repairs."""
    loaded = nib.load(path)
    voxels = np.asarray(loaded.dataobj)
    header = loaded.header.copy()
    for name, value in fields.items():
        header[name] = value
    plain = io.BytesIO()
    header.write_to(plain)
    plain.write(bytes(4))
    plain.write(voxels.tobytes(order="F"))
    with nib.openers.Opener(path, "wb") as stream:
        stream.write(plain.getvalue())


def poke(path: Path, value: float) -> None:
    voxels = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    voxels[2, 3, 1] = value
    save(path, voxels)


BREAK: dict[str, tuple[FaultKind, bool, Callable[[Case], object]]] = {
    "missing": (FaultKind.MISSING, False, lambda case: case.images["flair"].unlink()),
    "missing_label": (FaultKind.MISSING, False, lambda case: case.files[-1].unlink()),
    "empty_file": (FaultKind.UNREADABLE, False, lambda case: case.images["t1"].write_bytes(b"")),
    "no_nifti": (FaultKind.UNREADABLE, False, lambda case: case.images["t1"].write_bytes(b"<html>login</html>" * 99)),
    # so small that the header is lost as well
    "cut_off": (FaultKind.UNREADABLE, False, lambda case: cut_off(case.images["t1"])),
    "complex": (
        FaultKind.UNREADABLE,
        False,
        lambda case: save(case.images["t1"], image(1).astype(np.complex64)),
    ),
    "four_axes": (FaultKind.NOT_3D, False, lambda case: save(case.images["t1"], image(2, (*SHAPE, 3)))),
    "two_axes": (FaultKind.NOT_3D, False, lambda case: save(case.images["t1"], image(2, SHAPE[:2]))),
    "shape": (FaultKind.SHAPE, False, lambda case: save(case.files[-1], label()[:-1])),
    "affine": (
        FaultKind.AFFINE,
        False,
        lambda case: save(case.files[-1], label(), ROTATED + 0.02 * np.eye(4)),
    ),
    "zero_spacing": (
        FaultKind.GEOMETRY,
        False,
        lambda case: set_header(case.images["t1"], pixdim=[1, 1, 0, 3, 1, 1, 1, 1]),
    ),
    "nan_affine": (FaultKind.GEOMETRY, False, lambda case: set_header(case.images["t1"], srow_x=[np.nan, 0, 0, 0])),
    "singular": (FaultKind.GEOMETRY, False, lambda case: set_header(case.images["t1"], srow_z=[0, 0, 0, 5])),
    "nan": (FaultKind.NON_FINITE, True, lambda case: poke(case.images["flair"], np.nan)),
    "inf": (FaultKind.NON_FINITE, True, lambda case: poke(case.images["flair"], np.inf)),
    "nan_label": (FaultKind.NON_FINITE, True, lambda case: poke(case.files[-1], np.nan)),
    "constant": (FaultKind.CONSTANT, True, lambda case: save(case.images["t1"], np.full(SHAPE, 7, np.int16))),
    "not_whole": (FaultKind.NON_INTEGER, True, lambda case: poke(case.files[-1], 0.5)),
    "no_class": (FaultKind.OUTSIDE_MAP, True, lambda case: poke(case.files[-1], 9)),
    "no_foreground": (FaultKind.EMPTY_FOREGROUND, True, lambda case: save(case.files[-1], 0 * label())),
}


@pytest.mark.parametrize("voxels", [True, False])
def test_all_faults_are_in_one_report(data: DataSet, voxels: bool) -> None:
    expected = set()
    for name, (kind, needs_voxels, apply) in BREAK.items():
        apply(data.add(name))
        if voxels or not needs_voxels:
            expected.add((name, kind))
    data.splits["test"] = [Case("no_label", data.add("unlabelled", "predict").images)]
    expected.add(("no_label", FaultKind.NO_LABEL))
    data.splits["val"] = [data.add("twice"), data.add("fine")]
    expected |= {("twice", FaultKind.DUPLICATE_SUBJECT), ("fine", FaultKind.DUPLICATE_SUBJECT)}
    report = data.check(voxels)
    assert {(fault.subject, fault.kind) for fault in report.faults} == expected
    assert len(report.faults) == len(expected)
    assert len(report.rows) == sum(len(cases) for cases in data.splits.values())
    with pytest.raises(InputError, match=f"{len(expected)} faults") as caught:
        report.raise_if_faulty()
    assert caught.value.problems == tuple(map(str, report.faults))
    assert not any("\n" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("name", [*BREAK])
def test_a_message_names_file_and_finding(data: DataSet, name: str) -> None:
    kind, _, apply = BREAK[name]
    case = data.add(name)
    apply(case)
    (fault,) = data.check().faults
    assert fault.kind is kind
    assert fault.path in case.files
    assert str(fault).startswith(f"{name}: {kind.value}: {fault.path}: ")
    assert fault.message.endswith(".")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "its folder holds seg.nii.gz, t1.nii.gz"),
        ("four_axes", "shape 5x7x4x3, expected 3 axes"),
        ("shape", "4x7x4, expected 5x7x4 as in t1.nii.gz"),
        ("affine", "mm from where t1.nii.gz has it, expected at most 0.05 mm"),
        ("zero_spacing", "1x0x3 mm"),
        ("nan", "1 of 140 voxels"),
        ("constant", "all voxels are 7"),
        ("not_whole", "not whole: 0.5"),
        ("no_class", "in no class: 9"),
        ("no_foreground", "no voxel is of core, oedema"),
    ],
)
def test_message_words(data: DataSet, name: str, words: str) -> None:
    BREAK[name][2](data.add(name))
    assert words in data.check().faults[0].message


def test_two_faults_of_a_case_are_both_found(data: DataSet) -> None:
    case = data.add("a")
    save(case.images["t1"], np.zeros((3, 3, 3)))
    poke(case.files[-1], 9)
    kinds = [fault.kind for fault in data.check().faults]
    assert sorted(kinds) == sorted([FaultKind.CONSTANT, FaultKind.OUTSIDE_MAP, FaultKind.SHAPE, FaultKind.SHAPE])


def test_empty_foreground_is_a_fault_of_training_only(data: DataSet) -> None:
    save(data.add("a", "test").files[-1], 0 * label())
    assert not data.check().faults


@pytest.mark.parametrize("copy", ["same_file", "copied", "uncompressed", "float64"])
def test_leakage(data: DataSet, copy: str) -> None:
    source = data.add("a")
    target = data.add("b", "test")
    path = target.images["t1"]
    if copy == "same_file":
        path = source.images["t1"]
    elif copy == "copied":
        shutil.copyfile(source.images["t1"], path)
    elif copy == "uncompressed":
        path = save(path.with_name("t1.nii"), image(0))
    else:
        save(path, image(0).astype(np.float64))
    data.splits["test"] = [Case("b", {**target.images, "t1": path}, target.label)]
    (fault,) = data.check().faults
    assert (fault.kind, fault.subject, fault.path) == (FaultKind.LEAKAGE, "b", path)
    assert "a's in train" in fault.message
    assert bool(data.check(voxels=False).faults) is (copy == "same_file")
    data.splits = {"train": [source, *data.splits["test"]]}
    assert not data.check().faults


def test_report_numbers(data: DataSet) -> None:
    case = data.add("a")
    (row,) = data.check().rows
    volume = nib.load(case.images["t1"]).get_fdata()
    assert (row.subject, row.split, row.shape, row.orientation) == ("a", "train", SHAPE, "RAS")
    assert row.spacing == pytest.approx((np.hypot(1.2, 0.6), np.hypot(0.5, 1.0), 3.0))
    assert row.intensity["t1"] == pytest.approx((volume.min(), volume.max()))
    assert row.voxels == {"background": 140 - 12, "core": 8, "oedema": 4}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR"])
def test_orientations_pass(data: DataSet, codes: str) -> None:
    case = data.add("a")
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(ROTATED), nib.orientations.axcodes2ornt(codes)
    )
    for path in case.files:
        nib.save(nib.load(path).as_reoriented(turn), path)
    report = data.check()
    assert not report.faults
    assert report.rows[0].orientation == codes


def test_sound_oddities_pass(data: DataSet) -> None:
    case = data.add("a")
    save(case.images["t1"], image(5, (*SHAPE, 1, 1)))
    scaled = nib.Nifti1Image(image(6).astype(np.int16), ROTATED)
    scaled.header.set_slope_inter(1713.5, -3)
    nib.save(scaled, case.images["flair"])
    nudge = np.zeros((4, 4))
    nudge[0, 3] = 0.9 * TOLERANCE_MM
    save(case.files[-1], label().astype(np.float64), ROTATED + nudge)
    data.splits["predict"] = [Case("b", data.add("b", "other").images)]
    report = data.check()
    assert not report.faults
    report.raise_if_faulty()


def test_analyze_has_no_affine_to_disagree(data: DataSet) -> None:
    case = data.add("a")
    path = case.images["t1"].with_name("t1.hdr")
    nib.save(nib.AnalyzeImage(image(3)[..., None], np.diag([-1.2, 1.0, 3.0, 1.0])), path)
    data.splits["train"] = [Case("a", {"t1": path, "flair": case.images["flair"]}, case.label)]
    report = data.check()
    assert not report.faults
    assert (report.rows[0].orientation, report.rows[0].shape) == ("?", SHAPE)
    path.with_suffix(".img").unlink()
    (fault,) = data.check(voxels=False).faults
    assert (fault.kind, fault.path) == (FaultKind.MISSING, path.with_suffix(".img"))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_file_cut_off_behind_its_header_shows_in_the_voxels(data: DataSet, ending: str) -> None:
    path = save(data.root / f"t1{ending}", image(0, (40, 30, 20)))
    cut_off(path)
    data.splits["predict"] = [Case("a", {"t1": path})]
    assert not data.check(voxels=False).faults
    (fault,) = data.check().faults
    assert (fault.kind, fault.path) == (FaultKind.UNREADABLE, path)
    assert "may be cut off" in fault.message


def test_broken_link_is_named(data: DataSet) -> None:
    path = data.add("a").images["t1"]
    path.unlink()
    path.symlink_to(path.with_name("annex.nii.gz"))
    assert "link to" in data.check().faults[0].message


@pytest.mark.parametrize(("width", "terminal"), [(200, True), (60, True), (60, False)])
def test_render_cuts_nothing_off(data: DataSet, width: int, terminal: bool) -> None:
    data.add("subject_with_[brackets]")
    poke(data.add("bad", "test").files[-1], 9)
    stream = io.StringIO()
    report = data.check()
    report.render(Console(file=stream, width=width, force_terminal=terminal, color_system=None))
    text = stream.getvalue()
    assert "…" not in text
    assert "2 cases (1 train, 1 test); 1 fault: 1x label values in no class" in text
    assert f"  - {report.faults[0]}" in text
    if (width, terminal) != (60, True):
        assert "subject_with_[brackets]" in text
        assert "5x7x4" in text


def test_render_keeps_the_order_of_modalities_where_a_file_is_missing(data: DataSet) -> None:
    data.add("a").images["t1"].unlink()
    data.add("b")
    stream = io.StringIO()
    data.check().render(Console(file=stream))
    header = stream.getvalue().splitlines()[1]
    assert header.index("t1") < header.index("flair") < header.index("core") < header.index("oedema")
    assert "background" not in header


def test_no_cases_no_faults() -> None:
    report = check({}, LABELS)
    assert not report.rows
    report.render(Console(file=io.StringIO()))
    report.raise_if_faulty()
