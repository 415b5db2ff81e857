"""Label values: whole but for rounding, or shown with their digits and what may have made them."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from riskft.data.check.data_set import CheckReport, FaultKind, check
from riskft.data.labels import IGNORE_INDEX, LabelMap, common_step, nearest_whole, why_not_whole, written
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.errors import InputError

SHAPE = (6, 5, 4)
LABELS = LabelMap({"a": [1], "b": [2]})
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def stored(values: tuple[float, ...], dtype: str = "f4") -> np.ndarray:
    """Returns a label with three voxels of each value, in their order, and zeros."""
    array = np.zeros(SHAPE, dtype)
    array.flat[: 3 * len(values)] = np.repeat(np.array(values, dtype), 3)
    return array


def case(root: Path, label: nib.Nifti1Image) -> Case:
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(image, AFFINE), root / "t1.nii")
    nib.save(label, root / "label.nii.gz")
    return Case("p", {"t1": root / "t1.nii"}, root / "label.nii.gz")


def scaled(root: Path, values: tuple[int, ...], slope: float, inter: float = 0) -> Case:
    """Writes bytes whose header scales them, which nibabel's own writer would undo."""
    found = case(root, nib.Nifti1Image(stored(values, "u1"), AFFINE))
    path = root / "label.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    return found


def checked(item: Case, labels: LabelMap = LABELS) -> CheckReport:
    return check({"train": [item]}, labels)


@pytest.mark.parametrize(
    ("value", "whole"),
    [(1.0009, 1), (0.9991, 1), (1.0011, None), (-0.0009, 0), (-1.0, -1), (2.004, None), (np.nan, None), (np.inf, None)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_is_what_is_within_a_thousandth(value: float, whole: int | None, dtype: type) -> None:
    rounded, near = nearest_whole(np.array([value], dtype))
    assert near.tolist() == [whole is not None]
    assert whole is None or rounded.tolist() == [whole]


def test_large_values_may_be_off_by_what_float32_rounds_them_by() -> None:
    values = np.float64(np.float32(1 / 255)) * 255 * np.array([1e6, 3e6])
    assert np.abs(values - np.rint(values)).max() > 1e-2
    assert nearest_whole(values)[1].all()
    assert nearest_whole(np.array([1e6 + 0.3]))[1].tolist() == [False]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, np.bool_])
def test_integers_are_whole(dtype: type) -> None:
    values = np.array([0, 1, 1], dtype)
    assert nearest_whole(values)[0] is values
    assert LabelMap({"a": [1]}).to_classes(values).tolist() == [0, 1, 1]


def test_to_classes_rounds_values_and_merges_what_rounds_to_one() -> None:
    raw = np.array([0, 1.0000001, 0.9995, 2.0004, 8.9999], np.float32)
    mapped = LabelMap({"a": [1], "b": [2]}, ignore=[9]).to_classes(raw)
    assert mapped.tolist() == [0, 1, 1, 2, IGNORE_INDEX]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([2.0, 3.0], "2, 3"),
        (np.float32([2.004, 1 / 3]), "2.004, 0.33333334"),
        ([1e6, 1234567.0, -4.0], "1000000, 1234567, -4"),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "0.1, 0.2, 0.3, 0.4, 0.5, and 2 more"),
    ],
)
def test_values_are_written_with_their_digits(values: list[float], text: str) -> None:
    assert written(values) == text


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0, 1 / 255, 2 / 255, 4 / 255], 1 / 255),
        ([0, 1.0039, 2.0078], 1.0039),
        ([2.5, 5, 7.5], 2.5),
        ([0.8, 1.2], 0.4),
        ([0, 1, 2, 4], None),
        ([0, 10, 150, 250], None),
        ([0, 1, 2.004], None),
        ([0, 1, 2, 0.13, 0.719, 1.3], None),
        ([np.nan, 0], None),
    ],
)
def test_what_all_values_are_multiples_of(values: list[float], step: float | None) -> None:
    for dtype in (np.float32, np.float64):
        found = common_step(np.array(values, dtype))
        assert found == (None if step is None else pytest.approx(step, rel=1e-5))


def test_messages_for_values_that_are_not_whole() -> None:
    assert why_not_whole(np.array([0, 1, 1.3, 2.004])) == (
        "values are not whole: 1.3, 2.004. The label may have been interpolated: resample the original by "
        "nearest neighbour"
    )
    assert "not whole: 0.25, 0.5. All are multiples of 0.25, which looks like a scale factor" in why_not_whole(
        np.array([0, 0.25, 0.5])
    )
    both = why_not_whole(np.array([0, 0.5, 1]))
    assert "if it is a scale factor (scl_slope)" in both
    assert "if they were interpolated" in both


@pytest.mark.parametrize(("slope", "values"), [(1 / 255, (0, 255)), (1 / 3, (0, 3, 6)), (0.1, (0, 10, 20))])
def test_a_scale_factor_s_rounding_is_taken_off(tmp_path: Path, slope: float, values: tuple[int, ...]) -> None:
    item = scaled(tmp_path, values, slope)
    assert not np.isin(np.asanyarray(nib.load(item.files[-1]).dataobj), [0, 1, 2]).all()  # as floats they are not
    report = checked(item)
    assert not report.faults
    expected = {"a": 3, "b": 3 if len(values) == 3 else 0}
    assert {name: report.rows[0].voxels[name] for name in expected} == expected
    options = Preprocessing(crop=False)
    (prepared,) = PreparedCache(tmp_path / "cache", LABELS, options).prepare([item])
    found = np.asarray(nib.load(prepared.folder / "label.nii").dataobj)
    assert np.bincount(found.ravel(), minlength=3).tolist() == [120 - 3 - expected["b"], 3, expected["b"]]


@pytest.mark.parametrize(
    ("slope", "inter", "values", "kind", "words"),
    [
        (0.5, 0, (0, 1, 3), FaultKind.NON_INTEGER, "values are not whole: 0.5, 1.5. The header multiplies the stored"),
        (
            1,
            0.25,
            (0, 1),
            FaultKind.NON_INTEGER,
            "not whole: 0.25, 1.25. The header multiplies the stored numbers by 1",
        ),
        (
            3,
            0,
            (0, 1),
            FaultKind.OUTSIDE_MAP,
            "in no class: 3. Add them to labels.classes, .background or .ignore. The",
        ),
        (
            1,
            7,
            (0, 1),
            FaultKind.OUTSIDE_MAP,
            "multiplies the stored numbers by 1 (scl_slope) and adds 7: set scl_slope",
        ),
    ],
)
def test_a_scale_in_the_header_is_named(
    tmp_path: Path, slope: float, inter: float, values: tuple[int, ...], kind: FaultKind, words: str
) -> None:
    faults = [fault for fault in checked(scaled(tmp_path, values, slope, inter)).faults if fault.kind is kind]
    assert len(faults) == 1
    assert words in faults[0].message


def test_values_in_the_file_itself(tmp_path: Path) -> None:
    """Scaled before they were saved, near to whole numbers, and far from them."""
    item = case(tmp_path, nib.Nifti1Image(stored((1.0001, 1.9999, 2.0)), AFFINE))
    report = checked(item)
    assert not report.faults
    assert report.rows[0].voxels == {"background": 111, "a": 3, "b": 6}
    item = case(tmp_path, nib.Nifti1Image(stored((1, 2.004)), AFFINE))
    (fault,) = checked(item).faults
    assert (fault.kind, "not whole: 2.004. The label may" in fault.message) == (FaultKind.NON_INTEGER, True)
    with pytest.raises(InputError, match=r"label\.nii\.gz: Label values are not whole: 2\.004\. The label may"):
        PreparedCache(tmp_path / "cache", LABELS, Preprocessing()).prepare([item])


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u8"])
def test_large_labels(tmp_path: Path, dtype: str) -> None:
    labels = LabelMap({"cortex": [14175], "huge": [1_000_000]})
    image = nib.Nifti1Image(stored((14175, 1_000_000), dtype), AFFINE, dtype=np.dtype(dtype))
    report = checked(case(tmp_path, image), labels)
    assert not report.faults
    assert report.rows[0].voxels == {"background": 114, "cortex": 3, "huge": 3}
    (fault,) = checked(case(tmp_path, image), LabelMap({"cortex": [14175]})).faults
    assert "in no class: 1000000." in fault.message


def test_labels_of_itk_files(tmp_path: Path) -> None:
    item = case(tmp_path, nib.Nifti1Image(stored((1,)), np.diag([-2.0, -2.0, 2.0, 1.0])))
    image = sitk.GetImageFromArray((stored((1, 2)) * np.float32(1.3)).T)
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, str(tmp_path / "label.nrrd"))
    faults = check({"predict": [Case("p", item.images, tmp_path / "label.nrrd")]}, LABELS).faults
    found = [fault.message for fault in faults if fault.kind is FaultKind.NON_INTEGER]
    assert len(found) == 1
    assert "not whole: 1.3, 2.6. All are multiples of 1.3, which looks like a scale factor" in found[0]
