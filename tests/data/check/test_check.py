"""The data check: every fault is found, in one report, and sound data of every kind passes."""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from rich.console import Console

from riskft.commands.data import main
from riskft.data.check.data_set import TOLERANCE_MM, CheckReport, FaultKind, WarningKind, check
from riskft.data.io.formats import open_image, parts
from riskft.data.io.volumes import read_volume
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
    "beyond": (FaultKind.BEYOND_FLOAT, True, lambda case: save(case.images["t1"], image(1).astype(np.float64) * 1e38)),
    "collapsed": (FaultKind.CONSTANT, True, lambda case: save(case.images["t1"], image(1).astype(np.float64) + 1e12)),
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
        ("four_axes", "found shape (5, 7, 4, 3), expected a 3-D volume"),
        ("shape", "4x7x4, expected 5x7x4 as in t1.nii.gz"),
        ("affine", "mm from where t1.nii.gz has it, expected at most 0.05 mm"),
        ("zero_spacing", "1x0x3 mm"),
        ("nan", "1 of 140 voxels"),
        ("constant", "all voxels are 7"),
        ("not_whole", "not whole: 0.5"),
        ("no_class", "in no class: 9"),
        ("beyond", "of 140 voxels exceed 3.4e38, the limit of 32-bit floats"),
        ("collapsed", "the voxels differ by at most 1"),
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
    assert "cut off" in fault.message


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


def test_render_says_what_is_taken_for_background(data: DataSet) -> None:
    stripped, air = image(0), image(1)
    stripped[:, :, :1] = 0  # 5 x 7 voxels of 140
    air[:, :2] = -1024  # 5 x 2 x 4
    save(data.add("a").images["t1"], stripped)
    save(data.add("b").images["t1"], air)
    report = data.check()
    sizes = [row.background["t1"] for row in report.rows]
    assert [(size.value, size.voxels, size.is_level) for size in sizes] == [(0, 35, False), (-1024, 40, True)]
    assert report.rows[0].background["flair"].value is None
    stream = io.StringIO()
    report.render(Console(file=stream))
    first, second = (line for line in stream.getvalue().splitlines() if " train " in line)
    assert ", background 0 in 35 (25.0 %) " in first
    assert ", no background " in first
    assert ", background -1024 in 40 (28.6 %), a grey level " in second


@pytest.mark.parametrize("split", ["train", "test"])
def test_foreground_that_a_crop_would_remove_is_a_warning(data: DataSet, split: str) -> None:
    case = data.add("a", split)
    for number, path in enumerate(case.images.values()):
        voxels = image(number)
        voxels[:, :2], voxels[:, 5 + number :] = 0, 0  # the box is rows 2 to 5, of the two modalities together
        save(path, voxels)
    raw = np.zeros(SHAPE, np.int16)
    raw[2, 1], raw[2, 5, 0], raw[2, 6, 0], raw[0, 0, 0] = 1, 2, 2, 0
    save(case.files[-1], raw)
    (warning,) = [found for found in data.check().warnings if found.kind is WarningKind.CROPPED]
    assert warning.path == case.files[-1]
    assert "5 of 6 foreground voxels lie in the background around the body" in warning.message


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


# -- MetaImage and NRRD, and files with channels ----------------------------------------------------------------------


def save_itk(path: Path, data: np.ndarray, affine: np.ndarray = ROTATED) -> Path:
    """Writes uncompressed, in LPS; a fourth axis becomes vector pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = sitk.GetImageFromArray(data.transpose(2, 1, 0, *range(3, data.ndim)), isVector=data.ndim == 4)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    volume.SetSpacing(spacing.tolist())
    volume.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    volume.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(volume, str(path))
    return path


def add_itk(data: DataSet, subject: str, end: str, split: str = "train", **images: np.ndarray) -> Case:
    case = data.add(subject, split)
    files = {name: path.with_name(f"{name}{end}") for name, path in case.images.items()}
    arrays = {name: np.asarray(nib.load(path).dataobj) for name, path in case.images.items()}
    for name, path in files.items():
        save_itk(path, images.get(name, arrays[name]))
    label_path = save_itk(case.files[-1].with_name(f"seg{end}"), label())
    data.splits[split][-1] = Case(subject, files, label_path)
    return data.splits[split][-1]


ITK_BREAK: dict[str, tuple[FaultKind, bool, Callable[[Path, np.ndarray], object]]] = {
    "cut_off": (FaultKind.UNREADABLE, True, lambda path, array: cut_off(path)),
    "no_header": (FaultKind.UNREADABLE, False, lambda path, array: path.write_bytes(path.read_bytes()[:60])),
    "text": (FaultKind.UNREADABLE, False, lambda path, array: path.write_text("<html>login</html>" * 99)),
    "empty": (FaultKind.UNREADABLE, False, lambda path, array: path.write_bytes(b"")),
    "missing": (FaultKind.MISSING, False, lambda path, array: path.unlink()),
    "nan": (FaultKind.NON_FINITE, True, lambda path, array: save_itk(path, np.where(array > 100, np.nan, array))),
    "constant": (FaultKind.CONSTANT, True, lambda path, array: save_itk(path, 0 * array)),
    "vector": (FaultKind.NOT_3D, False, lambda path, array: save_itk(path, np.stack([array, array], -1))),
    "affine": (FaultKind.AFFINE, False, lambda path, array: save_itk(path, array, ROTATED + 0.02 * np.eye(4))),
    "shape": (FaultKind.SHAPE, False, lambda path, array: save_itk(path, array[1:])),
}


@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_faults_of_itk_files(data: DataSet, end: str) -> None:
    for name, (_, _, apply) in ITK_BREAK.items():
        apply(add_itk(data, name, end).images["flair"], image(7))
    add_itk(data, "sound", end)
    for voxels in (True, False):
        report = data.check(voxels)
        found = {(fault.subject, fault.kind, fault.path) for fault in report.faults}
        assert found == {
            (name, kind, data.root / name / f"flair{end}")
            for name, (kind, needs_voxels, _) in ITK_BREAK.items()
            if voxels or not needs_voxels
        }
        assert len(report.faults) == len(found)
        assert not any("\n" in fault.message or "SimpleITK" in fault.message for fault in report.faults)


@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_numbers_of_itk_files(data: DataSet, end: str) -> None:
    add_itk(data, "a", end)
    nifti = data.add("b")
    data.splits["train"][-1] = Case("b", {**nifti.images, "flair": data.root / "b" / f"flair{end}"}, nifti.label)
    save_itk(data.root / "b" / f"flair{end}", image(9))
    report = data.check()
    assert not report.faults  # the formats place the same voxel alike
    row, other = report.rows
    assert (row.shape, row.orientation) == (other.shape, other.orientation) == (SHAPE, "RAS")
    assert row.spacing == pytest.approx((np.hypot(1.2, 0.6), np.hypot(0.5, 1.0), 3.0))
    assert row.intensity["t1"] == pytest.approx((image(0).min(), image(0).max()))
    assert row.voxels == {"background": 140 - 12, "core": 8, "oedema": 4}


@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_zero_spacing_of_an_itk_file_is_one_fault(data: DataSet, end: str) -> None:
    path = save_itk(add_itk(data, "a", end).images["t1"], image(0), np.diag([1.25, 1.5, 2.0, 1.0]))
    text = path.read_bytes()
    # NRRD has LPS vectors, MetaImage LPS directions and the spacing by itself
    broken = text.replace(b"ElementSpacing = 1.25 1.5 2", b"ElementSpacing = 1.25 0 2").replace(b",-1.5,", b",0,")
    assert broken != text
    path.write_bytes(broken)
    for voxels in (True, False):
        (fault,) = data.check(voxels).faults
        assert (fault.kind, fault.path) == (FaultKind.GEOMETRY, path)
        assert "1.25x0x2 mm" in fault.message


@pytest.mark.parametrize("end", [".mhd", ".nhdr"])
def test_a_header_without_its_data_file(data: DataSet, end: str) -> None:
    case = add_itk(data, "a", end)
    assert not data.check().faults
    case.images["t1"].with_suffix(".raw").unlink()
    (fault,) = data.check(voxels=False).faults
    assert (fault.kind, fault.path) == (FaultKind.MISSING, case.images["t1"].with_suffix(".raw"))
    assert f"t1{end} needs it" in fault.message


def test_leakage_between_formats(data: DataSet) -> None:
    data.add("a")
    add_itk(data, "b", ".nrrd", "test", t1=image(0))
    (fault,) = data.check().faults
    assert (fault.kind, fault.subject) == (FaultKind.LEAKAGE, "b")
    assert "a's in train" in fault.message


def add_stacked(data: DataSet, subject: str, channels: dict[str, int], split: str = "train", end: str = ".nii") -> Path:
    case = data.add(subject, split)
    seed = 50 + 10 * sum(len(cases) for cases in data.splits.values())
    arrays = np.stack([image(seed + channel) for channel in range(3)], -1)
    path = (save if end == ".nii" else save_itk)(data.root / subject / f"all{end}", arrays)
    data.splits[split][-1] = Case(subject, dict.fromkeys(channels, path), case.label, channels=channels)
    return path


@pytest.mark.parametrize("end", [".nii", ".mha", ".nrrd"])
def test_modalities_in_one_file(data: DataSet, end: str) -> None:
    path = add_stacked(data, "a", {"t1": 2, "flair": 0}, end=end)
    report = data.check()
    assert not report.faults
    volume = read_volume(path, 2)[0]
    assert report.rows[0].shape == SHAPE
    assert report.rows[0].intensity["t1"] == pytest.approx((volume.min(), volume.max()))
    assert list(report.rows[0].intensity) == ["t1", "flair"]


def test_faults_of_files_with_channels(data: DataSet) -> None:
    def poked(subject: str, index: tuple[slice | int, ...], value: float) -> None:
        path = add_stacked(data, subject, {"t1": 1, "flair": 2})
        array = np.array(nib.load(path).dataobj)
        array[index] = value
        save(path, array)

    poked("nan", (2, 3, 1, 1), np.nan)
    poked("other_nan", (2, 3, 1, 0), np.nan)  # in no channel that is read
    poked("constant", (slice(None), slice(None), slice(None), 2), 5)
    add_stacked(data, "index", {"t1": 0, "flair": 3})
    save(add_stacked(data, "flat", {"t1": 0, "flair": 1}), image(1))
    add_stacked(data, "missing", {"t1": 0, "flair": 1}).unlink()
    cut_off(add_stacked(data, "cut", {"t1": 0, "flair": 1}))
    report = data.check()
    assert [(fault.subject, fault.kind) for fault in report.faults] == [
        ("nan", FaultKind.NON_FINITE),
        ("constant", FaultKind.CONSTANT),
        ("index", FaultKind.NOT_3D),
        ("flat", FaultKind.NOT_3D),
        ("missing", FaultKind.MISSING),
        ("cut", FaultKind.UNREADABLE),
    ]
    messages = [fault.message for fault in report.faults]
    assert "1 of 140 voxels of channel 1 are NaN" in messages[0]
    assert "all voxels of channel 2 are 5" in messages[1]
    assert "3 channels, expected one with the index 3" in messages[2]
    assert "1 channel, expected one with the index 1" in messages[3]
    assert [fault.subject for fault in data.check(voxels=False).faults] == ["index", "flat", "missing"]


def test_a_file_with_channels_is_read_once(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add_stacked(data, "a", {"t1": 2, "flair": 0, "t2": 1})
    opened: list[Path] = []
    monkeypatch.setattr("riskft.data.io.volume_faults.open_image", lambda file: opened.append(file) or open_image(file))
    data.check()
    assert opened.count(path) == 1


def test_a_channel_that_is_another_split_s_image(data: DataSet) -> None:
    data.add("a")
    path = add_stacked(data, "b", {"t1": 2, "flair": 0}, "test")
    save(path, np.stack([image(70), image(71), image(0)], -1))
    (fault,) = data.check().faults
    assert (fault.kind, fault.subject, fault.path) == (FaultKind.LEAKAGE, "b", path)


@pytest.mark.parametrize("end", [".mha", ".nrrd", ".nhdr"])
def test_a_manifest_of_itk_files(data: DataSet, end: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [add_itk(data, name, end) for name in ("a", "b", "c")]
    table = data.root / "cases.csv"
    rows = [f"{case.subject},train,{case.images['t1']},{case.images['flair']},{case.label}" for case in cases]
    table.write_text("\n".join(["subject,split,t1,flair,label", *rows]))
    arguments = ["check", "--data.reader", "riskft.ManifestReader", "--data.reader.csv", str(table)]
    arguments += ["--data.modalities", "[t1, flair]", "--data.labels.classes", "{core: [1, 4], oedema: [2]}"]
    arguments += ["--data.split", "riskft.ReaderSplit"]
    main(arguments)
    assert "3 cases (3 train); 0 faults" in capsys.readouterr().out
    cut_off(parts(cases[1].images["t1"])[-1])
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "1 fault: 1x unreadable file" in printed
    assert f"b: unreadable file: {cases[1].images['t1']}: the voxels cannot be read" in printed
