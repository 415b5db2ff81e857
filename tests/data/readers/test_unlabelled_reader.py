"""A folder of scans without labels: every convention by itself, and none guessed where they are mixed."""

from pathlib import Path

import pytest

from riskft.data.readers import UnlabelledReader
from riskft.errors import InputError


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, *modalities: str) -> dict[str, list[str]]:
    """Returns the files' names, relative to the folder, by subject."""
    cases = UnlabelledReader(folder).cases(list(modalities))
    assert [case.subject for case in cases] == sorted(case.subject for case in cases)
    assert all(case.label is None and case.split is None and not case.channels for case in cases)
    assert all(list(case.images) == list(modalities) for case in cases)
    return {case.subject: [str(path.relative_to(folder)) for path in case.images.values()] for case in cases}


def test_one_modality(tmp_path: Path) -> None:
    fill(tmp_path, "scan7.mha", "p1.nii.gz", "b.v2.nrrd", "old.hdr", "old.img", "alone.img", "split.mhd", "split.raw")
    fill(
        tmp_path, ".hidden.nii", "._p1.nii.gz", "notes.txt", "dataset.json", "UP.NII.GZ", "sub_0001.nii", "empty/x.txt"
    )
    assert found(tmp_path, "t1") == {
        "scan7": ["scan7.mha"],
        "p1": ["p1.nii.gz"],
        "b.v2": ["b.v2.nrrd"],
        "old": ["old.hdr"],
        "alone": ["alone.img"],
        "split": ["split.mhd"],
        "UP": ["UP.NII.GZ"],
        "sub_0001": ["sub_0001.nii"],
    }


def test_one_modality_with_channel_numbers(tmp_path: Path) -> None:
    fill(tmp_path, "case_0000.nii.gz", "case_2_0000.nii.gz")
    assert found(tmp_path, "t1") == {"case": ["case_0000.nii.gz"], "case_2": ["case_2_0000.nii.gz"]}


def test_one_modality_that_the_names_end_in(tmp_path: Path) -> None:
    fill(tmp_path, "a_T1.nii.gz", "b_t1.nii.gz")
    assert found(tmp_path, "t1") == {"a_T1": ["a_T1.nii.gz"], "b_t1": ["b_t1.nii.gz"]}


def test_channel_numbers(tmp_path: Path) -> None:
    fill(tmp_path, "b_0000.mha", "b_0001.mha", "a_0001.nii.gz", "a_7_0000.nii.gz", "a_7_0001.nii.gz")
    assert found(tmp_path, "flair", "t1") == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],  # the first is not there: the check says so
        "a_7": ["a_7_0000.nii.gz", "a_7_0001.nii.gz"],
        "b": ["b_0000.mha", "b_0001.mha"],
    }


def test_modality_names(tmp_path: Path) -> None:
    fill(tmp_path, "a_t1.nii", "a_t1ce.nii", "a_FLAIR.nii", "a_seg.nii", "b-1-T1.nrrd", "b-1-flair.nrrd", "c_t1.mha")
    assert found(tmp_path, "flair", "t1") == {
        "a": ["a_FLAIR.nii", "a_t1.nii"],
        "b-1": ["b-1-flair.nrrd", "b-1-T1.nrrd"],
        "c": ["c_flair.mha", "c_t1.mha"],
    }


def test_a_modality_that_another_one_ends_in(tmp_path: Path) -> None:
    fill(tmp_path, "a_ce.nii", "a_t1_ce.nii")
    assert found(tmp_path, "ce", "t1_ce") == {"a": ["a_ce.nii", "a_t1_ce.nii"]}


def test_folders(tmp_path: Path) -> None:
    fill(tmp_path, "a/t1.nii.gz", "a/FLAIR.nii.gz", "a/seg.nii.gz", "b/b_t1.mha", "b/B-flair.mha", "c/c_flair.nrrd")
    fill(tmp_path, "d/other.nii", "notes/readme.txt", ".git/t1.nii.gz", "readme.md")
    assert found(tmp_path, "t1", "flair") == {
        "a": ["a/t1.nii.gz", "a/FLAIR.nii.gz"],
        "b": ["b/b_t1.mha", "b/B-flair.mha"],
        "c": ["c/c_t1.nrrd", "c/c_flair.nrrd"],
        "d": ["d/t1.nii", "d/flair.nii"],
    }
    assert found(tmp_path, "t1")["b"] == ["b/b_t1.mha"]


@pytest.mark.parametrize(
    ("names", "modalities", "words"),
    [
        ((), ("t1",), r"holds no image \(found: nothing\)"),
        (("a.dcm", "b.png", "c.gz", "d.txt"), ("t1",), r"found: a\.dcm, b\.png, c\.gz, and 1 more.*\.nii\.gz, .*\.mha"),
        (("sub/a.dcm",), ("t1",), r"holds no image \(found: sub\), nor does a folder"),
        (("a.nii", "b/t1.nii"), ("t1",), r"both images \(a\.nii\) and folders of images \(b\)"),
        (("a_0000.nii", "b.nii"), ("t1",), r"a_0000\.nii, which ends in _0000, and b\.nii, which does not"),
        (("a_0000.nii", "a_0001.nii"), ("t1",), r"a_0000\.nii, which ends in _0000, and a_0001\.nii"),
        (("a_t1.nii", "a_t2.nii"), ("t1",), r"a_t1\.nii, which ends in _t1, and a_t2\.nii"),
        (
            ("a_0000.nii", "a_0001.nii", "a_0002.nii"),
            ("t1", "t2"),
            r"a_0002\.nii beside .*<subject>_0000, <subject>_0001",
        ),
        (
            ("a_0000.nii", "b_t1.nii"),
            ("t1", "t2"),
            r"a_0000\.nii beside b_t1\.nii; expected <subject>_t1, <subject>_t2 \(or",
        ),
        (("a_t1.nii", "a_t2.nii", "b.nii"), ("t1", "t2"), r"holds b\.nii beside a_t1\.nii, a_t2\.nii"),
        (
            ("a.nii", "b.nii"),
            ("t1", "t2"),
            r"holds a\.nii, b\.nii; expected <subject>_t1",
        ),
        (("a.nii", "a.mha"), ("t1",), r"several files for one image:\n.*a\.mha and .*a\.nii are both t1 of a"),
        (("a_t1.nii", "a-T1.mha", "a_t2.nii"), ("t1", "t2"), r"a-T1\.mha and .*a_t1\.nii are both t1 of a; keep one"),
        (("a/t1.nii", "a/a_t1.nii"), ("t1",), r"a/a_t1\.nii and .*a/t1\.nii are both t1 of a"),
    ],
)
def test_refused_folders(tmp_path: Path, names: tuple[str, ...], modalities: tuple[str, ...], words: str) -> None:
    fill(tmp_path, *names)
    with pytest.raises(InputError, match=words) as error:
        UnlabelledReader(tmp_path).cases(modalities)
    assert str(tmp_path) in str(error.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent is not a folder"):
        UnlabelledReader(tmp_path / "absent").cases(["t1"])
