"""Compressed files: damage that only a checksum shows, and files that are not what their names say."""

import gzip
import itertools
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from riskft.data.check.data_set import FaultKind, check
from riskft.data.io.volumes import read_volume
from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.errors import InputError

SHAPE = (12, 10, 8)
LABELS = LabelMap({"x": [1]})
HEADER = 352


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 60, SHAPE).astype(np.int16)


def truth() -> np.ndarray:
    return (np.indices(SHAPE).sum(0) < 9).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    return path


def repack(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Changes the content of an archive, but not its checksum and length."""
    archive = path.read_bytes()
    path.write_bytes(gzip.compress(change(gzip.decompress(archive)))[:-8] + archive[-8:])


def bad_block(content: bytes, start: int = HEADER + 300) -> bytes:
    return content[:start] + b"\x01" * 100 + content[start + 100 :]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "other_content": (lambda path: repack(path, bad_block), "CRC check failed"),
    # of which neither hides the other
    "other_checksum": (lambda path: path.write_bytes(path.read_bytes()[:-8] + b"abcd" + path.read_bytes()[-4:]), "CRC"),
    "other_length": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x07"), "Incorrect length of data"),
    "no_trailer": (lambda path: path.write_bytes(path.read_bytes()[:-8]), "it is cut off"),
    "half_a_trailer": (lambda path: path.write_bytes(path.read_bytes()[:-3]), "it is cut off"),
}


@pytest.mark.parametrize("file", ["image", "label"])
@pytest.mark.parametrize("damage", [*DAMAGE])
def test_a_damaged_archive_is_named_by_the_check_and_by_what_reads_it_first(
    tmp_path: Path, file: str, damage: str
) -> None:
    paths = {"image": save(tmp_path / "image.nii.gz", voxels()), "label": save(tmp_path / "label.nii.gz", truth())}
    case = Case("p", {"t1": paths["image"]}, paths["label"])
    sound = PreparedCache(tmp_path / "cache", LABELS, Preprocessing()).prepare([case])
    apply, words = DAMAGE[damage]
    apply(paths[file])
    assert not check({"train": [case]}, LABELS, voxels=False).faults
    (fault,) = check({"train": [case]}, LABELS).faults
    assert (fault.kind, fault.path) == (FaultKind.UNREADABLE, paths[file])
    assert re.search(rf"{file}\.nii\.gz: cannot be read \(.*{words}.*\)\. Copy it again\.$", str(fault))
    with pytest.raises(InputError, match=rf"{file}\.nii\.gz: cannot be read \(.*{words}") as caught:
        PreparedCache(tmp_path / "cache", LABELS, Preprocessing()).prepare([case])
    assert len(caught.value.problems) == 1
    assert [path.name for path in (tmp_path / "cache/cases").iterdir()] == [sound[0].key]


@pytest.mark.parametrize(
    "behind",
    [b"", bytes(512), b"garbage", gzip.compress(b""), gzip.compress(b"more")],
    ids=["nothing", "zeros", "garbage", "an empty member", "a member"],  # gzip's content has the time in it
)
@pytest.mark.parametrize("members", [1, 3])
def test_archives_of_several_members_and_trailing_bytes(tmp_path: Path, members: int, behind: bytes) -> None:
    path = save(tmp_path / "t1.nii.gz", voxels())
    content = gzip.decompress(path.read_bytes())
    cuts = [len(content) * k // members for k in range(members + 1)]
    path.write_bytes(b"".join(gzip.compress(content[a:b]) for a, b in itertools.pairwise(cuts)) + behind)
    np.testing.assert_array_equal(read_volume(path)[0], voxels())
    assert not check({"predict": [Case("p", {"t1": path})]}, LABELS).faults


def test_damage_in_a_member_that_holds_no_voxel_of_the_channel(tmp_path: Path) -> None:
    stack = np.stack([voxels(1), voxels(2), voxels(3)], axis=-1)
    path = save(tmp_path / "t1.nii.gz", stack)
    np.testing.assert_array_equal(read_volume(path, 1)[0], voxels(2))
    repack(path, lambda content: bad_block(content, len(content) - 300))
    for channel in (0, 2):
        with pytest.raises(InputError, match="CRC check failed"):
            read_volume(path, channel)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4"])
def test_scale_factors_and_byte_orders_of_archives(tmp_path: Path, dtype: str) -> None:
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    image = nib.Nifti1Image(voxels().astype(dtype), np.eye(4), header, dtype=np.dtype(dtype))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "t1.nii.gz")
    stored = nib.load(tmp_path / "t1.nii.gz")
    found, _ = read_volume(tmp_path / "t1.nii.gz")
    np.testing.assert_array_equal(found, np.asanyarray(stored.dataobj))
    assert found.dtype == np.asanyarray(stored.dataobj).dtype


def test_voxels_that_begin_like_an_archive_are_not_one(tmp_path: Path) -> None:
    array = voxels()
    array.flat[0] = np.frombuffer(b"\x1f\x8b", "<i2")[0]
    array[0, 0, 0] = np.frombuffer(b"\x1f\x8b", "<i2")[0]
    nib.save(nib.Nifti1Pair(array, np.eye(4)), tmp_path / "t1.hdr")
    assert (tmp_path / "t1.img").read_bytes()[:2] == b"\x1f\x8b"
    np.testing.assert_array_equal(read_volume(tmp_path / "t1.hdr")[0], array)


@pytest.mark.parametrize("end", [".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [True, False])
def test_metaimage_and_nrrd(tmp_path: Path, end: str, compressed: bool) -> None:
    """ITK itself reads a damaged MetaImage file as if it were sound."""
    path = tmp_path / f"t1{end}"
    image = sitk.GetImageFromArray(voxels().T)
    sitk.WriteImage(image, str(path), useCompression=compressed)
    np.testing.assert_array_equal(read_volume(path)[0], voxels())
    if not compressed:
        return
    data = next((file for file in tmp_path.iterdir() if file != path), path)
    content = data.read_bytes()
    window = zlib.MAX_WBITS | (16 if "n" in end else 0)
    head = b"" if data != path else content[: content.index(b"\n\n") + 2 if "n" in end else content.index(b"LOCAL") + 6]
    packer = zlib.compressobj(wbits=window)
    other = packer.compress(voxels(1).T.tobytes()) + packer.flush()
    trailer = 8 if "n" in end else 4
    packed = other[:-trailer] + content[-trailer:]
    data.write_bytes(_resized(head, len(packed)) + packed)
    path.write_bytes(_resized(path.read_bytes(), len(packed)))
    with pytest.raises(InputError, match=rf"t1\{end}: cannot be read"):
        read_volume(path)
    (fault,) = check({"predict": [Case("p", {"t1": path})]}, LABELS).faults
    assert (fault.kind, fault.path) == (FaultKind.UNREADABLE, path)


def _resized(text: bytes, size: int) -> bytes:
    return re.sub(rb"CompressedDataSize = \d+", b"CompressedDataSize = %d" % size, text)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t1.nii", gzip.compress, "compressed with gzip.* Rename it to t1.nii.gz"),
        ("t1.nii.gz", lambda plain: plain, r"not compressed.* Rename it to t1\.nii,"),
        ("T1.NII.GZ", lambda plain: plain, r"not compressed.* Rename it to T1\.NII,"),
        ("t1.mha", gzip.compress, "compressed with gzip.* Unpack it"),
        ("t1.nii.gz", lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("t1.nii", lambda _: b"/annex/objects/MD5E-s1--1.nii\n", "git annex get"),
        ("t1.nii.gz", lambda _: b"PK\x03\x04" + bytes(400), "a zip archive.* Unpack it"),
        ("t1.nii", lambda _: b"\n<!DOCTYPE HTML><html>".strip() + b" " * 400, "a web page.* Download the image again"),
        ("t1.nii", lambda _: bytes(128) + b"DICM" + bytes(400), "a DICOM file.* Convert"),
    ],
)
def test_files_that_are_not_what_their_names_say(
    tmp_path: Path, name: str, content: Callable[[bytes], bytes], words: str
) -> None:
    plain = save(tmp_path / "plain.nii", voxels()).read_bytes()
    path = tmp_path / name
    path.write_bytes(content(plain))
    (fault,) = check({"predict": [Case("p", {"t1": path})]}, LABELS, voxels=False).faults
    assert fault.kind is FaultKind.UNREADABLE
    assert re.search(words, fault.message)
    with pytest.raises(InputError, match=words) as caught:
        read_volume(path)
    assert str(path) in str(caught.value)
