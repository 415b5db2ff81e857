"""Cases and splits without foreground, values beyond 32-bit floats, and what does not fit the options."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from riskft.data.check.data_set import CheckMemory, CheckReport, FaultKind, WarningKind, check
from riskft.data.check.report import CheckRow
from riskft.data.check.training import huge_grids, too_few_patches
from riskft.data.labels import LabelMap
from riskft.data.records import Case

SHAPE = (10, 9, 8)
LABELS = LabelMap({"core": [1], "rim": [2]}, ignore=[9])
BOTH = (0, 1, 2)


def case(folder: Path, name: str, values: tuple[int, ...], image: np.ndarray | None = None) -> Case:
    """Writes a case whose label has these values, one after the other."""
    noise = np.random.default_rng(list(name.encode())).normal(100, 9, SHAPE)
    paths = folder / f"{name}_t1.nii", folder / f"{name}_seg.nii"
    nib.save(nib.Nifti1Image(noise if image is None else image, np.diag([1.0, 1.0, 2.0, 1.0])), paths[0])
    nib.save(nib.Nifti1Image(np.resize(np.uint8(values), SHAPE), np.diag([1.0, 1.0, 2.0, 1.0])), paths[1])
    return Case(name, {"t1": paths[0]}, paths[1])


def checked(folder: Path, **splits: list[tuple[int, ...]]) -> CheckReport:
    cases = {
        split: [case(folder, f"{split}{number}", values) for number, values in enumerate(found)]
        for split, found in splits.items()
    }
    return check(cases, LABELS)


def found(report: CheckReport) -> list[tuple[str, object]]:
    return [(finding.subject, finding.kind) for finding in [*report.faults, *report.warnings]]


def test_a_training_case_without_foreground_is_a_warning(tmp_path: Path) -> None:
    report = checked(tmp_path, train=[BOTH, (0,), (0, 9)], val=[BOTH, (0,)])
    assert found(report) == [
        ("train1", WarningKind.EMPTY_FOREGROUND),
        ("train2", WarningKind.EMPTY_FOREGROUND),
    ]
    assert "train1_seg.nii: no voxel is core, rim." in report.warnings[0].message


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_case_that_is_ignored_wholly_is_a_warning(tmp_path: Path, split: str) -> None:
    report = checked(tmp_path, **{"train": [BOTH], split: [BOTH, (9,)]})
    assert found(report) == [(f"{split}1", WarningKind.ALL_IGNORED)]
    assert "every voxel is ignored" in report.warnings[0].message


@pytest.mark.parametrize("values", [(0,), (0, 9), (9,)])
def test_nothing_to_learn_is_a_fault(tmp_path: Path, values: tuple[int, ...]) -> None:
    report = checked(tmp_path, train=[values, (0,)], val=[BOTH])
    (fault,) = report.faults
    assert (fault.subject, fault.kind) == ("train", FaultKind.EMPTY_FOREGROUND)
    assert "no train case has a voxel of core, rim: there is nothing to learn" in fault.message


def test_a_class_that_is_in_no_training_case_is_a_warning(tmp_path: Path) -> None:
    report = checked(tmp_path, train=[(0, 1), (0, 1, 9)], val=[BOTH])
    assert found(report) == [("train", WarningKind.EMPTY_FOREGROUND)]
    assert "no training case has a voxel of rim" in report.warnings[0].message


@pytest.mark.parametrize(("split", "words"), [("val", "choose the best checkpoint by"), ("test", "nothing to score")])
def test_a_split_whose_only_class_is_ignored_is_a_warning(tmp_path: Path, split: str, words: str) -> None:
    report = checked(tmp_path, **{"train": [BOTH], split: [(0, 9), (9,)]})
    assert (split, WarningKind.EMPTY_FOREGROUND) in found(report)
    assert words in report.warnings[-1].message
    assert not report.faults


def test_no_training_case_is_a_warning_where_training_is_asked_about(tmp_path: Path) -> None:
    assert found(checked(tmp_path, train=[], test=[BOTH])) == [("train", WarningKind.EMPTY_SPLIT)]
    assert not found(checked(tmp_path, test=[BOTH]))


# -- values beyond 32-bit floats ----------------------------------------------------


def image_report(folder: Path, image: np.ndarray) -> CheckReport:
    return check({"test": [case(folder, "a", BOTH, image)]}, LABELS)


def noise() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, SHAPE)


@pytest.mark.parametrize("factor", [1e39, -1e300])
def test_values_beyond_32_bits(tmp_path: Path, factor: float) -> None:
    volume = noise()
    volume[1, 1, 1:3] = abs(factor)
    (fault,) = image_report(tmp_path, volume).faults
    assert fault.kind is FaultKind.BEYOND_FLOAT
    assert "2 of 720 voxels exceed 3.4e38" in fault.message


@pytest.mark.parametrize("volume", [noise() * 1e-60, noise() + 1e12])
def test_values_that_become_one_are_a_constant_image(tmp_path: Path, volume: np.ndarray) -> None:
    (fault,) = image_report(tmp_path, volume).faults
    assert fault.kind is FaultKind.CONSTANT
    assert "which 32-bit floats cannot represent: all become" in fault.message


def test_few_grey_levels_are_a_warning(tmp_path: Path) -> None:
    # float32 has steps of 1 from 2^23 to 2^24
    report = image_report(tmp_path, np.linspace(2**23 + 1, 2**23 + 41, 720).reshape(SHAPE))
    assert not report.faults
    (warning,) = report.warnings
    assert warning.kind is WarningKind.COARSE
    assert "represent only 41 of the grey levels from 8388609 to 8388649" in warning.message


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_images_that_32_bits_hold_are_not_warned_of(tmp_path: Path, dtype: type) -> None:
    report = image_report(tmp_path, np.round(noise() * 5 + 60).astype(dtype))
    assert not report.faults
    assert not report.warnings


# -- options ------------------------------


@pytest.mark.parametrize(
    ("cases", "per_volume", "batch", "processes", "patches"),
    [(3, 2, 7, 1, 6), (3, 2, 6, 1, None), (4, 1, 3, 2, 2), (5, 1, 3, 2, None), (0, 1, 9, 1, None)],
)
def test_too_few_patches(cases: int, per_volume: int, batch: int, processes: int, patches: int | None) -> None:
    faults = too_few_patches(cases, per_volume, batch, processes)
    assert len(faults) == (patches is not None)
    if faults:
        assert f"an epoch has {patches} patches" in faults[0].message


def test_grids_that_become_huge_by_a_wrong_unit() -> None:
    def rows(*spacing: float) -> list[CheckRow]:
        return [CheckRow("a", "train", shape=(24, 24, 24), spacing=spacing)]

    (fault,) = huge_grids(rows(400, 400, 800), [1, 1, 1])
    assert (fault.kind, fault.subject) == (FaultKind.TOO_LARGE, "a")
    assert "24x24x24 voxels become 1.8e+12" in fault.message  # 24^3 * 400 * 400 * 800
    assert not huge_grids(rows(400, 400, 800), None)
    assert not huge_grids(rows(0.4, 0.4, 0.8), [1, 1, 1])
    assert not huge_grids([CheckRow("a", "train", shape=(2000, 2000, 2000), spacing=(1, 1, 1))], [1, 1, 1])
    assert not huge_grids([CheckRow("a", "train")], [1, 1, 1])


# -- what has been looked at is not read again ------------------------------


def test_sound_cases_are_remembered_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        "train": [case(tmp_path, "a", BOTH), case(tmp_path, "b", (0,))],
        "test": [case(tmp_path, "c", BOTH), case(tmp_path, "d", (0, 7))],
    }
    memory = tmp_path / "cache" / "checks.json"
    first = check(cases, LABELS, memory=CheckMemory(memory))
    assert [fault.subject for fault in first.faults] == ["d"]
    read: list[str] = []
    from riskft.data.check import data_set as module

    look = module.inspect_case
    monkeypatch.setattr(module, "inspect_case", lambda *args: read.append(args[1].subject) or look(*args))
    second = check(cases, LABELS, memory=CheckMemory(memory))
    assert read == ["d"]  # which has a fault
    assert second.faults == first.faults
    assert second.warnings == first.warnings
    assert [row.voxels for row in second.rows] == [row.voxels for row in first.rows]
    read.clear()
    case(tmp_path, "c", BOTH, noise())
    nib.save(nib.load(cases["train"][0].images["t1"]), cases["test"][1].images["t1"])  # a copy, in another split
    third = check(cases, LABELS, memory=CheckMemory(memory))
    assert sorted(read) == ["c", "d"]
    assert [fault.kind for fault in third.faults] == [FaultKind.OUTSIDE_MAP, FaultKind.LEAKAGE]
    read.clear()
    assert not check({"test": cases["test"]}, LabelMap({"all": [1, 2, 7]}), memory=CheckMemory(memory)).faults
    assert sorted(read) == ["c", "d"]  # other labels


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}'])
def test_a_damaged_memory_costs_another_reading(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "checks.json"
    memory.write_text(content)
    assert not check({"train": [case(tmp_path, "a", BOTH)]}, LABELS, memory=CheckMemory(memory)).faults
