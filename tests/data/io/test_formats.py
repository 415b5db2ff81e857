"""File formats: the same voxels in the same place, whatever the file; against TorchIO, nibabel and SimpleITK."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torchio as tio

from riskft.data.io.formats import ENDINGS, ending, is_image, open_image, parts, stem, stored_spacing
from riskft.data.io.native import native_dtype, native_grid, to_native, write_native
from riskft.data.io.volumes import read_volume
from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing, preprocess
from riskft.data.records import Case
from riskft.errors import InputError
from riskft.files import fingerprint

SHAPE = (7, 5, 4)
SPACING = (1.2, 1.5, 2.0)
ITK = (".mha", ".mhd", ".nrrd", ".nhdr")
LABELS = LabelMap({"blob": [1]})


def geometry(codes: str = "LAS") -> np.ndarray:
    """Rotated about z and a little about x, axes as the codes say."""
    z, x = np.deg2rad(12), np.deg2rad(5)
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    signs = [1 if code in "RAS" else -1 for code in codes]
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(np.array(SPACING) * signs)
    affine[:3, 3] = (11, -7, 23)
    return affine


def voxels(*channels: int, seed: int = 0, dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, (*SHAPE, *channels)).astype(dtype)


def save(path: Path, array: np.ndarray, affine: np.ndarray, vector: bool = True) -> Path:
    """Writes by nibabel or, in LPS, by SimpleITK; a fourth axis as vector pixels or as an axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine), path)
    elif path.suffix in (".hdr", ".img"):
        nib.save(nib.Nifti1Pair(array, affine), path)
    else:
        lps = np.diag([-1, -1, 1, 1]) @ affine
        if array.ndim == 4 and vector:
            image = sitk.GetImageFromArray(array.transpose(2, 1, 0, 3), isVector=True)
        else:
            image = sitk.GetImageFromArray(array.T, isVector=False)
        extra = array.ndim - 3 if not (array.ndim == 4 and vector) else 0
        direction = np.eye(3 + extra)
        direction[:3, :3] = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing([*np.linalg.norm(lps[:3, :3], axis=0), *[1.0] * extra])
        image.SetDirection(direction.flatten().tolist())
        image.SetOrigin([*lps[:3, 3], *[0.0] * extra])
        sitk.WriteImage(image, str(path))
    return path


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("p1.nii.gz", "p1", ".nii.gz"),
        ("p1.v2.nii", "p1.v2", ".nii"),
        ("P1.NII.GZ", "P1", ".NII.GZ"),
        ("scan7.mha", "scan7", ".mha"),
        ("a.nhdr", "a", ".nhdr"),
        ("a.hdr", "a", ".hdr"),
        ("notes.tar.gz", "notes.tar", ".gz"),
        ("none", "none", ""),
    ],
)
def test_stem_and_ending(name: str, first: str, last: str) -> None:
    assert (stem(Path("folder.x") / name), ending(Path("folder.x") / name)) == (first, last)
    assert is_image(Path(name)) is (last.lower() in ENDINGS)
    assert not is_image(Path(f"._{name}"))


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RPI"])
@pytest.mark.parametrize("end", [".nii.gz", ".img", *ITK])
def test_affine_and_voxels_are_torchio_s(tmp_path: Path, end: str, codes: str) -> None:
    path = save(tmp_path / f"scan{end}", voxels(), geometry(codes))
    array, affine = read_volume(path)
    oracle = tio.ScalarImage(path)
    np.testing.assert_allclose(affine, oracle.affine, atol=1e-6)
    np.testing.assert_allclose(affine, geometry(codes), atol=1e-4)
    np.testing.assert_array_equal(array, oracle.data[0].numpy())
    np.testing.assert_array_equal(array, voxels())
    image = open_image(path)
    assert image.shape == SHAPE
    assert image.get_data_dtype() == np.int16
    assert stored_spacing(image) == pytest.approx(SPACING)
    assert native_grid(Case("s", {"t1": path}))[0] == SHAPE


def test_nrrd_in_another_space(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\nencoding: raw\n"
        "space directions: (0,2,0) (-1.5,0,0) (0,0,3)\nspace origin: (10,20,30)\n\n"
    )
    path.write_bytes(header.encode() + bytes(range(24)))
    array, affine = read_volume(path)
    np.testing.assert_allclose(affine, [[0, -1.5, 0, 10], [2, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]], atol=1e-12)
    assert array[1, 0, 0] == 1  # the first axis is the fastest
    assert array[0, 1, 0] == 2
    assert array[0, 0, 1] == 6
    np.testing.assert_allclose(affine, tio.ScalarImage(path).affine, atol=1e-12)


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("end", [".nii.gz", ".nii", *ITK])
def test_channels(tmp_path: Path, end: str, vector: bool) -> None:
    path = save(tmp_path / f"scan{end}", voxels(3), geometry(), vector)
    oracle = tio.ScalarImage(path)
    for channel in range(3):
        array, affine = read_volume(path, channel)
        np.testing.assert_array_equal(array, voxels(3)[..., channel])
        np.testing.assert_array_equal(array, oracle.data[channel].numpy())
        np.testing.assert_allclose(affine, geometry(), atol=1e-4)
    case = Case("s", {"b": path, "a": path}, channels={"b": 2, "a": 0})
    assert native_grid(case)[0] == SHAPE
    volumes = preprocess(case, LABELS, Preprocessing(crop=False, orientation=None, intensity=None))
    np.testing.assert_array_equal(volumes.image[0].numpy(), voxels(3)[..., 2])
    np.testing.assert_array_equal(volumes.image[1].numpy(), voxels(3)[..., 0])
    for channel, words in ((None, "MsdReader"), (3, "3 channels, expected one with the index 3"), (-1, "index -1")):
        with pytest.raises(InputError, match=words) as error:
            read_volume(path, channel)
        lines = str(error.value).splitlines()
        assert len(lines) <= 3
        assert lines[0].startswith(f"{path}: found shape (7, 5, 4, 3)")


def test_channels_of_a_3d_file(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii", voxels(1), geometry())
    np.testing.assert_array_equal(read_volume(path, 0)[0], voxels(1)[..., 0])
    with pytest.raises(InputError, match=r"with 1 channel, expected one with the index 1"):
        read_volume(path, 1)
    with pytest.raises(InputError, match=r"found shape \(7, 5, 4, 2, 3\), expected a 3-D volume"):
        read_volume(save(tmp_path / "five.nii", voxels(2, 3), geometry()), 0)


def test_scale_factors_of_a_channel_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(voxels(2), geometry())
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(
        read_volume(tmp_path / "scan.nii.gz", 1)[0], nib.load(tmp_path / "scan.nii.gz").get_fdata()[..., 1], rtol=1e-6
    )
    assert native_dtype(Case("s", {"a": tmp_path / "scan.nii.gz"}, channels={"a": 1})) == np.int16


def damage_zero_spacing(path: Path) -> None:
    text = path.read_bytes()
    if path.suffix == ".mha":
        path.write_bytes(text.replace(b"ElementSpacing = 1.2 1.5 2", b"ElementSpacing = 1.2 0 2"))
    elif path.suffix == ".nrrd":
        start = text.index(b"space directions:")
        end = text.index(b"\n", start)
        path.write_bytes(text[:start] + b"space directions: (1,0,0) (0,0,0) (0,0,2)" + text[end:])
    else:
        path.write_bytes(text[:84] + bytes(4) + text[88:])  # pixdim[2]


@pytest.mark.parametrize("end", [".nii", ".mha", ".nrrd"])
def test_zero_spacing_is_a_one_line_error(tmp_path: Path, end: str) -> None:
    path = save(tmp_path / f"scan{end}", voxels(), np.diag([1.2, 1.5, 2.0, 1.0]))
    damage_zero_spacing(path)
    with pytest.raises(InputError, match=r"spacing is \(1\S*, 0\.0, 2\.0\) mm, expected numbers above 0") as error:
        read_volume(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("end", [".nii.gz", *ITK])
@pytest.mark.parametrize("damage", ["cut", "text", "missing"])
def test_unreadable_files_are_a_one_line_error(tmp_path: Path, end: str, damage: str) -> None:
    path = save(tmp_path / f"scan{end}", voxels(), geometry())
    if damage == "cut":
        data = next((part for part in parts(path) if part != path), path)
        data.write_bytes(data.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("<html>login</html>" * 99)
    else:
        path.unlink()
    with pytest.raises(InputError, match="cannot be read") as error:
        read_volume(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert "SimpleITK" not in str(error.value)


# -- files of several parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "other"), [(".mhd", ".raw"), (".nhdr", ".raw"), (".hdr", ".img"), (".img", ".hdr")])
def test_parts(tmp_path: Path, end: str, other: str) -> None:
    path = save(tmp_path / f"scan{end}", voxels(), geometry())
    assert parts(path) == [path, path.with_suffix(other)]
    path.with_suffix(other).unlink()
    assert parts(path) == [path, path.with_suffix(other)]  # there or not


def test_parts_of_one_file(tmp_path: Path) -> None:
    for end in (".nii.gz", ".mha", ".nrrd"):
        path = save(tmp_path / f"scan{end}", voxels(), geometry())
        assert parts(path) == [path]
    for line in ("ElementDataFile = LIST", "ElementDataFile = slice%02d.raw 1 4 1", "ElementDataFile = LOCAL", ""):
        (tmp_path / "scan.mhd").write_text(f"NDims = 3\n{line}\n")
        assert parts(tmp_path / "scan.mhd") == [tmp_path / "scan.mhd"]
    assert parts(tmp_path / "absent.mhd") == [tmp_path / "absent.mhd"]


def prepared_keys(folder: Path, *cases: Case) -> list[str]:
    return [prepared.key for prepared in PreparedCache(folder, LABELS, Preprocessing()).prepare(cases)]


@pytest.mark.parametrize("end", [".mhd", ".nhdr"])
def test_the_cache_sees_a_change_of_the_data_file(tmp_path: Path, end: str) -> None:
    case = Case("s", {"t1": save(tmp_path / f"scan{end}", voxels(), geometry())})
    first = prepared_keys(tmp_path / "cache", case)
    assert prepared_keys(tmp_path / "cache", case) == first
    header = case.images["t1"].read_bytes()
    save(case.images["t1"], voxels(seed=1), geometry())
    assert case.images["t1"].read_bytes() == header
    assert prepared_keys(tmp_path / "cache", case) != first


def test_the_cache_tells_channels_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", voxels(2), geometry())
    split = [save(tmp_path / f"{channel}.nii.gz", voxels(2)[..., channel], geometry()) for channel in range(2)]
    cases = [
        Case("s", {"a": path, "b": path}, channels={"a": 0, "b": 1}),
        Case("s", {"a": path, "b": path}, channels={"a": 1, "b": 0}),
        Case("s", {"a": path}, channels={"a": 0}),
        Case("s", {"a": path}, channels={"a": 1}),
        Case("s", {"a": split[0], "b": split[1]}),
        Case("s", {"a": path, "b": split[1]}, channels={"a": 0}),
    ]
    cache = PreparedCache(tmp_path / "cache", LABELS, Preprocessing())
    prepared = cache.prepare(cases)
    assert len({item.key for item in prepared}) == len(cases)
    images = [nib.load(item.folder / "image.nii").get_fdata() for item in prepared]
    np.testing.assert_array_equal(images[0], images[4])
    np.testing.assert_array_equal(images[0], images[5])
    np.testing.assert_array_equal(images[1][..., ::-1], images[4])
    assert not np.array_equal(images[2], images[3])


def test_the_key_of_a_case_without_channels_does_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "riskft.data.prepare.cache.fingerprint", lambda content: seen.append(sorted(content)) or fingerprint(content)
    )
    case = Case("s", {"t1": save(tmp_path / "scan.nii.gz", voxels(), geometry())})
    prepared_keys(tmp_path / "cache", case)
    assert seen == [["files", "labelled", "labels", "modalities", "preprocessing", "version"]]


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDINGS)
@pytest.mark.parametrize("source", [".nii.gz", ".hdr", ".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_outputs_take_the_input_s_geometry(tmp_path: Path, source: str, end: str, dtype: type) -> None:
    case = Case("s", {"t1": save(tmp_path / f"in/scan{source}", voxels(), geometry("LPS"))})
    target = tmp_path / "out" / f"scan{end}"
    write_native(target, voxels(seed=3, dtype=dtype), case)
    if end in ITK:
        image = sitk.ReadImage(str(target))
        got = sitk.GetArrayFromImage(image).T
        scan = np.diag([-1, -1, 1, 1]) @ geometry("LPS")
        np.testing.assert_allclose(image.GetSpacing(), SPACING, rtol=1e-5)
        np.testing.assert_allclose(image.GetDirection(), (scan[:3, :3] / SPACING).flatten(), atol=1e-5)
        np.testing.assert_allclose(image.GetOrigin(), scan[:3, 3], atol=1e-4)
    else:
        image = nib.load(target)
        got = np.asarray(image.dataobj)
        np.testing.assert_allclose(image.affine, geometry("LPS"), atol=1e-4)
        assert image.header.get_xyzt_units()[0] == "mm" or source not in (".mha", ".nrrd")
    np.testing.assert_array_equal(got, voxels(seed=3))
    assert got.dtype == dtype
    # its files and no others are there, nothing half-written
    assert {path.name for path in target.parent.iterdir()} == {part.name for part in parts(target)}
    np.testing.assert_allclose(tio.ScalarImage(target).affine, tio.ScalarImage(case.images["t1"]).affine, atol=1e-4)


def test_a_pair_in_analyze_stays_analyze(tmp_path: Path) -> None:
    path = tmp_path / "in/scan.hdr"
    path.parent.mkdir()
    nib.save(nib.AnalyzeImage(voxels(), np.diag([-1.2, 1.5, 2.0, 1.0])), path)
    write_native(tmp_path / "out/scan.hdr", voxels(seed=3, dtype=np.uint8), Case("s", {"t1": path}))
    scan, written = nib.load(path), nib.load(tmp_path / "out/scan.hdr")
    assert not isinstance(written, nib.Nifti1Pair)
    np.testing.assert_array_equal(written.affine, scan.affine)
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels(seed=3))
    assert written.get_data_dtype() == np.uint8
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["scan.hdr", "scan.img"]


@pytest.mark.parametrize("end", [".nii.gz", ".mha", ".nrrd"])
def test_four_axes_are_written_last(tmp_path: Path, end: str) -> None:
    case = Case("s", {"t1": save(tmp_path / f"scan{end}", voxels(2), geometry())}, channels={"t1": 1})
    write_native(tmp_path / f"out{end}", voxels(3, dtype=np.float32), case)
    image = tio.ScalarImage(tmp_path / f"out{end}")
    np.testing.assert_array_equal(np.moveaxis(image.data.numpy(), 0, -1), voxels(3))
    np.testing.assert_allclose(image.affine, geometry(), atol=1e-4)


@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_a_round_trip_brings_every_voxel_back(tmp_path: Path, end: str) -> None:
    case = Case("s", {"t1": save(tmp_path / f"scan{end}", voxels(), geometry("LPI"))})
    volumes = preprocess(case, LABELS, Preprocessing(crop=False, intensity=None))
    assert nib.aff2axcodes(volumes.affine) == ("R", "A", "S")
    np.testing.assert_allclose(to_native(volumes.image, volumes.affine, case)[0].numpy(), voxels(), atol=1e-3)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    case = Case("s", {"t1": save(tmp_path / "scan.mha", voxels(), geometry())})
    with pytest.raises(TypeError, match="float16"):
        write_native(tmp_path / "out/scan.mha", voxels(dtype=np.float16), case)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.data
@pytest.mark.skipif("RISKFT_DATA" not in os.environ, reason="needs real volumes")
@pytest.mark.parametrize("end", [".mha", ".nrrd"])
def test_a_real_scan_in_itk_s_formats(tmp_path: Path, end: str) -> None:
    path = next(iter(sorted(Path(os.environ["RISKFT_DATA"]).rglob("*t1.nii.gz"))))
    scan = nib.load(path)
    write_native(tmp_path / f"scan{end}", np.asarray(scan.dataobj, dtype=np.float32), Case("s", {"t1": path}))
    array, affine = read_volume(tmp_path / f"scan{end}")
    np.testing.assert_allclose(affine, scan.affine, atol=1e-4)
    np.testing.assert_allclose(array, scan.get_fdata(), rtol=1e-6)
