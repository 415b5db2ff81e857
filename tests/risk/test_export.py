"""Exported maps lie on the scan as it was given, and the summary table says what is in them."""

import csv
import io
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from risk_cases import DEFAULT, NAMES, TinySource, affine, phase_of, prepare, save, store_of, write_case
from scipy.ndimage import map_coordinates

from riskft.data.io.native import native_grid, to_native, write_native
from riskft.data.io.volumes import read_volume
from riskft.data.prepare.cache import PreparedCase
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.cases import native_segmentation
from riskft.risk.export import COLUMNS, export_case, refuse_existing, summary_csv
from riskft.risk.store import RiskStore

Array = np.ndarray[Any, np.dtype[Any]]
GEOMETRIES = {
    "RAS": affine("RAS"),
    "LAS rotated": affine("LAS", degrees=20),
    "PIL": affine("PIL", spacing=(0.8, 1.1, 1.9)),
    "SRA rotated": affine("SRA", spacing=(2.1, 0.7, 1.3), degrees=-12),
}


def finished(folder: Path, geometry: Array, **options: Any) -> tuple[PreparedCase, RiskStore]:
    train = prepare(folder / "cache", [write_case(folder / "raw", "s 1", 3, geometry)], **options)
    store = store_of(folder / "risk", train)
    phase_of(store, TinySource().infer).run(train)
    return train[0], store


def exported(
    folder: Path, geometry: Array, **options: Any
) -> tuple[PreparedCase, RiskStore, dict[str, nib.Nifti1Image]]:
    case, store = finished(folder, geometry, **options)
    export_case(folder / "out", store, case, NAMES)
    return case, store, {kind: nib.load(folder / "out" / f"s 1_{kind}.nii.gz") for kind in ("weight", "hardness")}


@pytest.mark.parametrize("spacing", [None, (1.5, 1.5, 1.5)])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_map_overlays_the_scan(tmp_path: Path, geometry: Array, spacing: tuple[float, ...] | None) -> None:
    case, _, images = exported(tmp_path, geometry, spacing=spacing)
    scan = nib.load(case.case.images["t1"])
    for image in images.values():
        assert image.shape == scan.shape == (11, 9, 7)
        np.testing.assert_array_equal(image.affine, scan.affine)
        np.testing.assert_allclose(image.affine, geometry, atol=1e-5)
        for name in ("qform_code", "sform_code", "xyzt_units", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b"):
            np.testing.assert_array_equal(image.header[name], scan.header[name])
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 2)
        assert image.get_data_dtype() == np.float32
        assert np.isfinite(image.get_fdata()).all()


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_without_resampling_every_voxel_comes_back(tmp_path: Path, geometry: Array) -> None:
    case, store, images = exported(tmp_path, geometry, margin=0)
    hardness, prepared_affine = store.read_hardness(case.subject)
    weight = read_volume(store.weight_path(case.subject))[0]
    for kind, prepared in (("hardness", hardness.numpy()), ("weight", weight)):
        canonical = nib.as_closest_canonical(images[kind])
        offset = np.linalg.inv(canonical.affine) @ prepared_affine[:, 3]
        start = np.round(offset[:3]).astype(int)
        np.testing.assert_allclose(offset[:3], start, atol=1e-4)
        inside = tuple(slice(a, a + size) for a, size in zip(start, prepared.shape, strict=True))
        volume = canonical.get_fdata()
        assert prepared.shape != volume.shape  # it was cropped
        np.testing.assert_allclose(volume[inside], prepared, atol=1e-4)
        volume[inside] = 0
        assert not volume.any()


def test_with_resampling_points_in_space_keep_their_value(tmp_path: Path) -> None:
    case, store, images = exported(tmp_path, GEOMETRIES["LAS rotated"], spacing=(1.0, 1.0, 2.0), margin=0)
    hardness, prepared_affine = store.read_hardness(case.subject)
    image = images["hardness"]
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in image.shape), indexing="ij")).reshape(3, -1)
    world = image.affine @ np.vstack([voxels, np.ones(voxels.shape[1])])
    place = (np.linalg.inv(prepared_affine) @ world)[:3]
    limit = np.array(hardness.shape)[:, None] - 1
    inside = ((place >= 0) & (place <= limit)).all(0)
    outside = ((place < -0.51) | (place > limit + 0.51)).any(0)
    assert inside.sum() > 100
    assert outside.sum() > 20
    values = image.get_fdata().reshape(-1)
    expected = map_coordinates(hardness.numpy(), place[:, inside], order=1)
    np.testing.assert_allclose(values[inside], expected, atol=1e-4)
    assert not values[outside].any()


@pytest.mark.parametrize("spacing", [(1.2, 0.9, 4.0), (2.0, 2.0, 2.0), (0.8, 0.8, 0.8)])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_maps_reach_the_scan_s_outermost_voxels(tmp_path: Path, geometry: Array, spacing: tuple[float, ...]) -> None:
    image = np.random.default_rng(0).normal(100, 10, (11, 9, 7)).astype(np.float32)  # no background, nothing cropped
    save(tmp_path / "t1.nii", image, geometry)
    save(tmp_path / "seg.nii", np.ones(image.shape, np.uint8), geometry)
    files = {"t1": tmp_path / "t1.nii"}
    case = prepare(tmp_path / "cache", [Case("s1", files, tmp_path / "seg.nii")], spacing=spacing)[0]
    store = RiskStore(tmp_path / "risk", {}, {})
    label = case.to_subject()["label"]
    constant = torch.ones(label.spatial_shape)
    store.write_hardness("s1", 2 * constant, torch.zeros_like(constant), label.affine)
    store.write_weights("s1", 3 * constant, label.affine)
    export_case(tmp_path / "out", store, case, NAMES)
    for kind, value in (("hardness", 2), ("weight", 3)):
        written = nib.load(tmp_path / "out" / f"s1_{kind}.nii.gz").get_fdata()
        assert written.shape == image.shape
        np.testing.assert_allclose(written, value, atol=1e-6)


def test_codes_of_the_scan_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    geometry = affine("LAS", degrees=10)
    image = nib.Nifti1Image((np.arange(60, dtype=np.int16) - 5).reshape(3, 4, 5), geometry)
    image.set_sform(geometry, code=4)
    image.set_qform(geometry, code=3)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(0.5, 3)
    image.header["cal_max"] = 40
    nib.save(image, path)
    write_native(tmp_path / "out.nii.gz", np.full((3, 4, 5), 0.25, np.float32), Case("s", {"t1": path}))
    written = nib.load(tmp_path / "out.nii.gz")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 3)
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert float(written.header["cal_max"]) == 0
    assert (written.get_fdata() == 0.25).all()


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Image])
def test_scan_in_another_nifti_format(tmp_path: Path, kind: Any) -> None:
    geometry = affine("LAS", degrees=10)
    image = kind(np.ones((3, 4, 5), np.float32), geometry)
    image.set_sform(geometry, code=1)
    image.set_qform(geometry, code=1)
    image.header.set_xyzt_units("mm")
    path = tmp_path / ("scan.img" if kind is nib.Nifti1Pair else "scan.nii")
    nib.save(image, path)
    write_native(tmp_path / "out.nii.gz", np.ones((3, 4, 5), np.uint8), Case("s", {"t1": path}))
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(written.affine, geometry, atol=1e-5)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (1, 1)
    assert written.header.get_xyzt_units()[0] == "mm"
    assert written.header.single_magic == written.header["magic"].item()


def test_analyze_scan(tmp_path: Path) -> None:
    image = nib.Spm99AnalyzeImage(np.ones((3, 4, 5), np.float32), np.diag([-1.0, 1.0, 2.0, 1.0]))
    path = tmp_path / "scan.img"
    nib.save(image, path)
    scan = nib.load(path)
    write_native(tmp_path / "out.nii.gz", np.ones((3, 4, 5), np.uint8), Case("s", {"t1": path}))
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, scan.affine, atol=1e-6)


def test_scan_with_a_trailing_axis(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii", np.ones((3, 4, 5, 1), np.float32), affine("LAS"))
    case = Case("s", {"t1": tmp_path / "scan.nii"})
    shape, geometry = native_grid(case)
    assert shape == (3, 4, 5)
    got = to_native(torch.arange(60.0).reshape(1, 3, 4, 5), geometry, case)
    torch.testing.assert_close(got, torch.arange(60.0).reshape(1, 3, 4, 5))


def test_native_segmentation_flips_back(tmp_path: Path) -> None:
    geometry = affine("LAS", degrees=20)
    case = write_case(tmp_path / "raw", "s1", 0, geometry)
    prepared = prepare(tmp_path / "cache", [case])[0]
    label = prepared.to_subject()["label"]
    classes = label.data[0].long()
    one_hot = torch.nn.functional.one_hot(classes.masked_fill(classes == 255, 0), 3).movedim(-1, 0).float()
    got = native_segmentation(one_hot, label.affine, case).classes
    raw = np.asarray(read_volume(tmp_path / "raw" / "s1_seg.nii.gz")[0])
    expected = np.where(raw == 4, 2, np.where(raw == 9, 0, raw))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


# -- files and the table ----------------------------------------------------------------------------------------------


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    cases = [Case(subject, {"t1": Path("/in/a.nii")}) for subject in ("s 1", "s2")]
    refuse_existing(tmp_path, cases, overwrite=False)  # nothing there yet
    for name in ("s 1_weight.nii.gz", "s 1_hardness.nii.gz", "s2_weight.nii.gz", "risk_summary.csv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"These files exist\. Add --overwrite true, or choose another --out") as error:
        refuse_existing(tmp_path, cases, overwrite=False)
    assert [Path(line).name for line in error.value.problems[:3]] == [
        "s 1_weight.nii.gz",
        "s 1_hardness.nii.gz",
        "s2_weight.nii.gz",
    ]
    assert error.value.problems[3] == "and 1 more"
    refuse_existing(tmp_path, cases, overwrite=True)
    refuse_existing(tmp_path / "other", cases, overwrite=False)


@pytest.mark.parametrize("how", ["same", "link"])
def test_maps_never_overwrite_the_images_they_are_made_from(tmp_path: Path, how: str) -> None:
    """Earlier maps can be a modality of the data set."""
    image = tmp_path / "s1_weight.nii.gz"
    image.touch()
    if how == "link":
        image = tmp_path / "links/image.nii.gz"
        image.parent.mkdir()
        image.symlink_to(tmp_path / "s1_weight.nii.gz")
    with pytest.raises(
        InputError, match=r"are images or labels of the data set\. Choose another --out(.|\n)*s1_weight"
    ):
        refuse_existing(tmp_path, [Case("s1", {"risk": image})], overwrite=True)


def test_summary_by_hand(tmp_path: Path) -> None:
    # a case of 2 x 2 x 3 voxels: background with hardness 0, 1, .., 5; rim with 10 and 20; no core; the rest ignored
    label = np.array([0, 0, 0, 0, 0, 0, 1, 1, 9, 9, 9, 9], np.uint8).reshape(2, 2, 3)
    save(tmp_path / "t1.nii", np.arange(12, dtype=np.float32).reshape(2, 2, 3), affine())
    save(tmp_path / "seg.nii", label, affine())
    case = prepare(tmp_path / "cache", [Case("s1", {"t1": tmp_path / "t1.nii"}, tmp_path / "seg.nii")], crop=False)[0]
    store = RiskStore(tmp_path / "risk", {}, {})
    hardness = torch.tensor([0.0, 1, 2, 3, 4, 5, 10, 20, 7, 7, 7, 7]).reshape(2, 2, 3)
    weight = torch.tensor([1.0, 1, 1, 1, 1, 4, 2, 3, 1, 1, 1, 1]).reshape(2, 2, 3)
    store.write_hardness("s1", hardness, torch.zeros(2, 2, 3), affine())
    store.write_weights("s1", weight, affine())
    text = summary_csv(export_case(tmp_path / "out", store, case, NAMES))
    assert text == (
        "subject,class_name,voxels,mean_hardness_nats,p95_hardness_nats,max_hardness_nats,mean_weight\n"
        "s1,background,6,2.5,4.75,5,1.5\n"
        "s1,rim,2,15,19.5,20,2.5\n"
        "s1,core,0,nan,nan,nan,nan\n"
    )


def test_summary_of_a_masked_phase_counts_what_the_phase_counted(tmp_path: Path) -> None:
    train = prepare(tmp_path / "cache", [write_case(tmp_path / "raw", "s1", 0)])
    plain = store_of(tmp_path / "risk", train)
    store = RiskStore(tmp_path / "risk", {**plain.inputs, "mask": True}, DEFAULT.describe())
    summary = phase_of(store, TinySource().infer, use_mask=True).run(train)
    rows = export_case(tmp_path / "out", store, train[0], NAMES)
    assert [row[2] for row in rows] == summary.class_voxels
    assert [row[3] for row in rows] == pytest.approx(summary.class_hardness, rel=1e-6)
    assert [row[6] for row in rows] == pytest.approx(summary.class_weight, rel=1e-6)


def test_the_summary_has_a_row_for_each_case_and_class(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train = risk_prepared[:3]
    store = store_of(tmp_path / "risk", train)
    phase_of(store, TinySource().infer).run(train)
    exported = [row for case in train for row in export_case(tmp_path / "one", store, case, NAMES)]
    text = summary_csv(exported)
    rows = list(csv.reader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1::3]] == ["s 2", "s1", "s3"]
    assert [row[1] for row in rows[1:4]] == NAMES
    assert len(list((tmp_path / "one").iterdir())) == 6


@pytest.mark.parametrize("count", [1, 3, 4])
def test_no_more_files_are_said_to_exist_than_do(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"s{number}_weight.nii.gz").touch()
    cases = [Case(f"s{number}", {"t1": tmp_path / "x.nii"}) for number in range(count)]
    with pytest.raises(InputError) as refused:
        refuse_existing(tmp_path, cases, overwrite=False)
    assert len(refused.value.problems) == min(count, 4)
    assert refused.value.problems[-1].startswith("and 1 more") == (count > 3)
