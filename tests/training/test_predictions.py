"""Predicting a folder: segmentations in the scans' own names, formats and geometry, and nothing overwritten."""

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
import torchio as tio
from lightning.pytorch import LightningModule, Trainer

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.native import to_native
from riskft.data.labels import LabelMap
from riskft.data.patches.batch import VolumeBatch
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.readers import UnlabelledReader
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.evaluation.cases import Segmentation
from riskft.training.predictions import SegmentationWriter, holds, output_names

SHAPE = (9, 7, 6)
LABELS = LabelMap({"grey": [1], "white": [2]})


def geometry() -> np.ndarray:
    """LPS, rotated about z, anisotropic."""
    angle = np.deg2rad(15)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-1.0, -1.2, 2.5])
    affine[:3, 3] = (20, 30, -10)
    return affine


def scan(seed: int, dtype: Any) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 90, SHAPE).astype(dtype)


def truth(array: np.ndarray) -> np.ndarray:
    return (array >= 30).astype(int) + (array >= 60)


def save(path: Path, array: np.ndarray) -> Path:
    """Writes by nibabel or SimpleITK alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, geometry()), path)
    elif path.suffix == ".hdr":
        nib.save(nib.Nifti1Pair(array, geometry()), path)
    else:
        image = sitk.GetImageFromArray(array.T)
        lps = np.diag([-1, -1, 1, 1]) @ geometry()
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(image, str(path))
    return path


class Threshold(LightningModule):
    """Classes by grey value: below 30, below 60, and above."""

    def predict_step(self, batch: VolumeBatch, batch_idx: int) -> Segmentation:
        values = batch.image[0, 0]
        classes = (values >= 30).long() + (values >= 60)
        probabilities = torch.nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
        native = to_native(probabilities, batch.affine, self.trainer.datamodule.prepared_case(batch.subject).case)
        return Segmentation(batch.subject, native.argmax(0).to(torch.uint8).numpy(), native.numpy())


def predict(
    folder: Path,
    out: Path,
    modalities: tuple[str, ...] = ("t1",),
    spacing: tuple[float, float, float] | None = None,
    **options: Any,
) -> None:
    data = RiskDataModule(
        UnlabelledReader(folder),
        list(modalities),
        LABELS,
        cache_dir=str(out.parent / "cache"),
        preprocessing=Preprocessing(spacing=spacing, crop=False, intensity=None),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[SegmentationWriter(out, **options)],
    )
    trainer.predict(Threshold(), datamodule=data, return_predictions=False)


SCANS = {
    "p1.nii.gz": np.int16,
    "p2.nii": np.float32,
    "scan7.mha": np.uint16,
    "scan8.nrrd": np.float64,
    "old.hdr": np.int16,
    "split.mhd": np.int8,
}


@pytest.mark.parametrize("dtype", ["input", "uint8"])
def test_segmentations_are_like_the_scans(tmp_path: Path, dtype: str) -> None:
    arrays = {name: scan(seed, kind) for seed, (name, kind) in enumerate(SCANS.items())}
    for name, array in arrays.items():
        save(tmp_path / "in" / name, array)
    predict(tmp_path / "in", tmp_path / "out", dtype=dtype)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted([*SCANS, "old.img", "split.zraw"])
    for name, array in arrays.items():
        path = tmp_path / "out" / name
        expected = np.dtype(np.uint8 if dtype == "uint8" else SCANS[name])
        if path.suffix in (".mha", ".nrrd", ".mhd"):
            image, original = sitk.ReadImage(str(path)), sitk.ReadImage(str(tmp_path / "in" / name))
            got = sitk.GetArrayFromImage(image).T
            np.testing.assert_allclose(image.GetDirection(), original.GetDirection(), atol=1e-6)
            np.testing.assert_allclose(image.GetOrigin(), original.GetOrigin(), atol=1e-4)
            np.testing.assert_allclose(image.GetSpacing(), original.GetSpacing(), atol=1e-6)
        else:
            image = nib.load(path)
            got = np.asarray(image.dataobj)
            np.testing.assert_allclose(image.affine, geometry(), atol=1e-4)
        np.testing.assert_array_equal(got, truth(array))
        assert got.dtype == expected
        np.testing.assert_allclose(tio.LabelMap(path).affine, geometry(), atol=1e-4)


def test_scaled_integers_stay_integers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(0, np.int16), geometry())
    image.header.set_slope_inter(2.5, 7)
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/p1.nii.gz")
    predict(tmp_path / "in", tmp_path / "out")
    written = nib.load(tmp_path / "out/p1.nii.gz")
    assert written.get_data_dtype() == np.int16
    assert (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asarray(written.dataobj), truth(nib.load(tmp_path / "in/p1.nii.gz").get_fdata()))


def test_big_endian_scans(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(0, ">i2"), geometry(), nib.Nifti1Header(endianness=">"))
    (tmp_path / "in").mkdir()
    nib.save(image, tmp_path / "in/p1.nii")
    predict(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(nib.load(tmp_path / "out/p1.nii").get_fdata(), truth(scan(0, np.int16)))


@pytest.mark.parametrize("end", [".nii.gz", ".mha"])
def test_probabilities(tmp_path: Path, end: str) -> None:
    save(tmp_path / f"in/a{end}", scan(4, np.int16))
    predict(tmp_path / "in", tmp_path / "out", probabilities=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"a{end}", "a_probabilities.nii.gz"]
    image = nib.load(tmp_path / "out/a_probabilities.nii.gz")
    assert image.shape == (*SHAPE, 3)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, geometry(), atol=1e-4)
    np.testing.assert_allclose(image.get_fdata(), np.eye(3)[truth(scan(4, np.int16))], atol=1e-5)


def test_without_the_option_no_probabilities(tmp_path: Path) -> None:
    save(tmp_path / "in/a.nii", scan(4, np.int16))
    predict(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii"]


@pytest.mark.parametrize("spacing", [(1.0, 1.2, 4.1), (2.3, 2.9, 1.0), (0.7, 0.7, 0.7)])
def test_the_scan_s_outermost_slices_are_segmented(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    save(tmp_path / "in" / "p1.nii", scan(0, np.int16) // 4 + 65)  # white everywhere
    predict(tmp_path / "in", tmp_path / "out", spacing=spacing, probabilities=True)
    assert (np.asarray(nib.load(tmp_path / "out" / "p1.nii").dataobj) == 2).all()
    probabilities = np.asarray(nib.load(tmp_path / "out" / "p1_probabilities.nii.gz").dataobj)
    np.testing.assert_allclose(probabilities[..., 2], 1, atol=1e-6)


def test_several_modalities(tmp_path: Path) -> None:
    for subject in ("a", "b"):
        for channel in range(2):
            save(tmp_path / f"in/{subject}_000{channel}.mha", scan(channel, (np.int16, np.float32)[channel]))
    predict(tmp_path / "in", tmp_path / "out", ("t1", "t2"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mha", "b.mha"]
    image = sitk.ReadImage(str(tmp_path / "out/a.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, truth(scan(0, np.int16)))
    assert image.GetPixelID() == sitk.sitkInt16


# -- what is refused --------------------------------------------------------------------------------------------------


def case(path: str, subject: str) -> Case:
    return Case(subject, {"t1": Path(path)})


def test_existing_files_are_kept(tmp_path: Path) -> None:
    save(tmp_path / "in/a.hdr", scan(0, np.int16))
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.img").write_text("mine")  # the other file of the pair
    with pytest.raises(InputError, match=r"1 output files exist.*--overwrite true(.|\n)*a\.img"):
        predict(tmp_path / "in", out)
    assert [path.name for path in out.iterdir()] == ["a.img"]
    predict(tmp_path / "in", out, overwrite=True)
    np.testing.assert_array_equal(np.asarray(nib.load(out / "a.hdr").dataobj), truth(scan(0, np.int16)))


def test_existing_probabilities_count_where_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a_probabilities.nii.gz").touch()
    SegmentationWriter(tmp_path).check([case("/in/a.nii", "a")])
    with pytest.raises(InputError, match="output files exist"):
        SegmentationWriter(tmp_path, probabilities=True).check([case("/in/a.nii", "a")])


@pytest.mark.parametrize("how", ["same", "link", "relative", "link to the scan"])
def test_scans_are_never_overwritten(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "in/a.nii", scan(0, np.int16))
    before = path.read_bytes()
    out = path.parent
    if how == "link":
        out = tmp_path / "link"
        out.symlink_to(path.parent)
    elif how == "relative":
        monkeypatch.chdir(tmp_path)
        out = Path("in")
    elif how == "link to the scan":
        path = tmp_path / "links/a.nii"
        path.parent.mkdir()
        path.symlink_to(out / "a.nii")
    with pytest.raises(InputError, match="holds the scans themselves"):
        SegmentationWriter(out, overwrite=True).check([case(str(path), "a")])
    if how == "same":
        with pytest.raises(InputError, match="holds the scans themselves"):
            predict(path.parent, out, overwrite=True)
    assert path.read_bytes() == before


def test_names_by_hand() -> None:
    def names(*cases: Case) -> list[str]:
        return list(output_names(cases).values())

    assert names(case("/in/scan7.mha", "scan7"), case("/in/p1.nii.gz", "other")) == ["scan7.mha", "other.nii.gz"]
    assert names(case("/in/50%.nii", "50%")) == ["50%.nii"]
    assert names(case("/in/p1_0000.nii.gz", "p1")) == ["p1.nii.gz"]
    assert names(case("/in/p1_0000.nii.gz", "p1_0000")) == ["p1_0000.nii.gz"]
    assert names(Case("p1", {"t1": Path("/in/x.nrrd"), "t2": Path("/in/y.nii")})) == ["p1.nrrd"]
    stacked = Case("p1", {"t1": Path("/in/x.nii"), "t2": Path("/in/x.nii")}, channels={"t1": 0, "t2": 1})
    assert names(stacked) == ["p1.nii"]
    assert names(case("/in/a/t1.nii.gz", "a"), case("/in/b/t1.nii.gz", "b")) == ["a.nii.gz", "b.nii.gz"]
    assert names(case("/in/a/T1.nii", "a"), case("/in/b/t1.nii", "b")) == ["a.nii", "b.nii"]
    assert names(case("/in/a/t1.mgz", "a")) == ["a.nii.gz"]
    assert names(Case("site/1", {"t1": Path("/a.nii"), "t2": Path("/b.nii")})) == ["site%2F1.nii"]


def test_names_that_two_cases_would_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"same subject(.|\n)*- a$"):
        output_names([case("/in/1.nii", "a"), case("/in/2.nii", "a")])
    # a segmentation that has the name of another one's probabilities
    cases = [case("/in/a.nii.gz", "a"), case("/in/b.nii.gz", "a_probabilities")]
    SegmentationWriter(tmp_path).check(cases)
    with pytest.raises(InputError, match=r"one name(.|\n)*a_probabilities\.nii\.gz"):
        SegmentationWriter(tmp_path, probabilities=True).check(cases)


@pytest.mark.parametrize(
    ("dtype", "classes", "expected"),
    [
        (np.uint8, 256, True),
        (np.int8, 128, True),
        (np.int8, 129, False),
        (np.uint16, 129, True),
        (np.float32, 129, True),
        (np.float64, 2, True),
        (np.float16, 2, False),
        (np.complex64, 2, False),
        (np.bool_, 2, False),
    ],
)
def test_types_that_hold_the_classes(dtype: Any, classes: int, expected: bool) -> None:
    assert holds(np.dtype(dtype), classes) is expected


def test_a_type_that_is_too_small_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = [Case(name, {"t1": save(tmp_path / f"{name}.nii", scan(0, np.int8))}) for name in ("a", "b")]
    writer = SegmentationWriter(tmp_path / "out")
    with caplog.at_level(logging.WARNING):
        found = [writer._scan_dtype(item, 200) for item in cases]
    assert found == [np.dtype(np.uint8)] * 2
    assert len(caplog.records) == 1
    assert "a.nii stores int8, which cannot hold 200 classes" in caplog.text
    assert writer._scan_dtype(cases[0], 128) == np.int8
