"""Readers of public layouts: the Medical Segmentation Decathlon, nnU-Net's raw data, BIDS."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from riskft.data.check.data_set import FaultKind, check
from riskft.data.labels import LabelMap
from riskft.data.readers import BidsReader, ManifestReader, MsdReader, NnunetReader, Reader
from riskft.data.splits import FractionSplit, ReaderSplit
from riskft.errors import InputError

DATA = os.environ.get("RISKFT_DATA")
TUMOUR = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def describe(root: Path, **content: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def problems_of(reader: Reader, *modalities: str) -> str:
    with pytest.raises(InputError) as caught:
        reader.cases(list(modalities))
    return str(caught.value)


# --- dataset.json, which the Decathlon and nnU-Net share


@pytest.mark.parametrize("reader", [MsdReader, NnunetReader])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "dataset.json does not exist (found first: ['other.txt'])"),
        ("{'labels': 1}", "is not valid JSON in UTF-8"),
        ("[1, 2]", "holds a list, expected an object"),
        ('{"labels": {}}', "has no 'channel_names' (or 'modality') among ['labels']"),
        ('{"modality": {}}', "'modality' is {}, expected the channels by number from 0"),
        ('{"channel_names": {"1": "T1"}}', '\'channel_names\' is {"1": "T1"}, expected the channels by number from 0'),
        ('{"channel_names": "T1"}', "expected the channels by number from 0"),
        ('{"modality": {"0": 3}}', "expected the channels by number from 0"),
    ],
)
def test_unusable_descriptions(tmp_path: Path, reader: Any, text: str | None, words: str) -> None:
    touch(tmp_path / "other.txt")
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    assert words in problems_of(reader(tmp_path), "t1")


@pytest.mark.parametrize("reader", [MsdReader, NnunetReader])
def test_the_root_is_checked(tmp_path: Path, reader: Any) -> None:
    assert "is not a folder: set the reader's root" in problems_of(reader(tmp_path / "nowhere"), "t1")
    (tmp_path / "dataset.json").write_bytes(b'{"name": "\xff"}')
    assert "is not text in UTF-8 (byte 10 is 0xff)" in problems_of(reader(tmp_path), "t1")


@pytest.mark.parametrize("reader", [MsdReader, NnunetReader])
def test_all_unknown_modalities_are_listed_with_what_there_is(tmp_path: Path, reader: Any) -> None:
    describe(tmp_path, modality=["T1", "noNorm", "nonorm"], labels=TUMOUR, training=[])
    text = problems_of(reader(tmp_path), "pd", "t1", "T1", "NoNorm", "3")
    assert text.count("\n") == 4
    assert "there is no 'pd': it has ['T1', 'noNorm', 'nonorm']" in text
    assert "'T1' is the same channel as another of" in text
    assert "'NoNorm' is the name of the channels [1, 2]: select one by number" in text
    assert "there is no '3'" in text


@pytest.mark.parametrize("reader", [MsdReader, NnunetReader])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (
            TUMOUR,
            LabelMap({"edema": [1], "non-enhancing_tumor": [2], "enhancing_tumour": [3]}),
        ),
        ({"0": "Clear Label", "2": "left / right"}, LabelMap({"left_right": [2]})),
        ({"background": 0, "tumour": 1, "ignore": 3}, LabelMap({"tumour": [1]}, [0], [3])),
        # as nnU-Net takes them too
        ({"background": "0", "tumour": "1", "ring": 2.0}, LabelMap({"tumour": [1], "ring": [2]})),
        (
            {"background": 0, "whole tumour": [1, 2, 4], "core": [2, 4], "enhancing": 4, "ignore": 5},
            LabelMap(
                {"label_1": [1], "label_2": [2], "label_4": [4]},
                [0],
                [5],
                regions={"whole_tumour": [1, 2, 4], "core": [2, 4], "enhancing": [4]},
            ),
        ),
    ],
)
def test_label_maps(tmp_path: Path, reader: Any, labels: dict[str, Any], expected: LabelMap) -> None:
    found = reader(describe(tmp_path, labels=labels)).label_map()
    assert found == expected
    assert list(found.classes) == list(expected.classes)


@pytest.mark.parametrize("reader", [MsdReader, NnunetReader])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, "no usable 'labels'"),
        (["background", "x"], "no usable 'labels'"),
        ({"background": 0, "x": "one"}, "'x' is \"one\", expected a whole number"),
        ({"background": 0, "x": 1.5, "y": True, "z": []}, "'y' is true"),
        ({"background": 0, "a b": 1, "a  b": 2}, "'a  b' occurs twice"),
        ({"background": 0, "x": 1, "y": 1}, "label value 1 is in both 'x' and 'y'"),
        ({"background": 0}, "labels.classes is empty"),
    ],
)
def test_unusable_label_maps(tmp_path: Path, reader: Any, labels: Any, words: str) -> None:
    describe(tmp_path, **({} if labels is None else {"labels": labels}))
    with pytest.raises(InputError) as caught:
        reader(tmp_path).label_map()
    assert words in str(caught.value)


# --- Medical Segmentation Decathlon


def decathlon(root: Path, names: list[str], held: list[str], **more: Any) -> Path:
    touch(*(root / folder / name for name in names for folder in ("imagesTr", "labelsTr")))
    touch(*(root / "imagesTs" / name for name in held))
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    content = {"modality": {"0": "MRI"}, "labels": TUMOUR, "training": training}
    return describe(root, **{**content, "test": [f"./imagesTs/{name}" for name in held], **more})


def test_msd_of_one_modality(tmp_path: Path) -> None:
    decathlon(tmp_path, ["hippo_010.nii.gz", "hippo_002.nii.gz", "._hippo_002.nii.gz"], ["hippo_005.nii.gz"])
    touch(tmp_path / "imagesTr" / "not_listed.nii.gz")
    two, five, ten = MsdReader(tmp_path).cases(["mri"])
    assert [case.subject for case in (two, five, ten)] == ["hippo_002", "hippo_005", "hippo_010"]
    assert two.images == {"mri": tmp_path / "imagesTr/hippo_002.nii.gz"}
    assert (two.label, two.split, two.channels) == (tmp_path / "labelsTr/hippo_002.nii.gz", None, {})
    assert (five.label, five.split) == (None, "predict")
    assert [case.subject for case in MsdReader(str(tmp_path), test=False).cases(["MRI"])] == ["hippo_002", "hippo_010"]


def test_msd_of_several_modalities_says_which_channel(tmp_path: Path) -> None:
    names = {"3": "T2w", "0": "FLAIR", "2": "t1gd", "1": "T1w"}
    decathlon(tmp_path, ["BRATS_001.nii.gz"], [], modality=names)
    (case,) = MsdReader(tmp_path).cases(["T1GD", "flair"])
    path = tmp_path / "imagesTr/BRATS_001.nii.gz"
    assert list(case.images.items()) == [("T1GD", path), ("flair", path)]
    assert case.channels == {"T1GD": 2, "flair": 0}
    assert case.files == (path, tmp_path / "labelsTr/BRATS_001.nii.gz")
    assert MsdReader(tmp_path).cases(["1"])[0].channels == {"1": 1}


def test_msd_files_that_are_unpacked_or_missing(tmp_path: Path) -> None:
    decathlon(tmp_path, ["a.nii.gz", "b.nii.gz"], [])
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder / "a.nii.gz").rename(tmp_path / folder / "a.nii")
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    one, two = MsdReader(tmp_path).cases(["MRI"])
    assert (one.subject, one.images["MRI"].name, one.label) == ("a", "a.nii", tmp_path / "labelsTr/a.nii")
    faults = check({"train": [one, two]}, LabelMap({"x": [1]}), voxels=False).faults
    assert [fault.path for fault in faults if fault.kind is FaultKind.MISSING] == [tmp_path / "labelsTr/b.nii.gz"]


LISTED = {
    "dot": lambda name: f"./{name}",
    "plain": lambda name: name,
    "backslash": lambda name: name.replace("/", "\\"),
    "dot_backslash": lambda name: ".\\" + name.replace("/", "\\"),
    "of_another_machine": lambda name: f"/home/anna/Task04/{name}",
    "of_a_windows_drive": lambda name: "D:\\data\\Task04\\" + name.replace("/", "\\"),
}


@pytest.mark.parametrize("dicts", [True, False])
@pytest.mark.parametrize("spelling", [*LISTED])
def test_msd_paths_in_every_spelling(tmp_path: Path, spelling: str, dicts: bool) -> None:
    listed = LISTED[spelling]
    decathlon(tmp_path, ["a.nii.gz", "._a.nii.gz"], ["t.nii.gz", "._t.nii.gz"])
    training = [
        {"image": listed(f"imagesTr/{name}"), "label": listed(f"labelsTr/{name}")}
        for name in ("a.nii.gz", "._a.nii.gz")
    ]
    held = [listed(f"imagesTs/{name}") for name in ("t.nii.gz", "._t.nii.gz")]
    describe(
        tmp_path,
        modality={"0": "MRI"},
        labels=TUMOUR,
        training=training,
        test=[{"image": entry} for entry in held] if dicts else held,
    )
    one, two = MsdReader(tmp_path).cases(["MRI"])
    assert (one.subject, one.images) == ("a", {"MRI": tmp_path / "imagesTr/a.nii.gz"})
    assert one.label == tmp_path / "labelsTr/a.nii.gz"
    assert (two.subject, two.images, two.split) == ("t", {"MRI": tmp_path / "imagesTs/t.nii.gz"}, "predict")


def test_msd_absolute_paths(tmp_path: Path) -> None:
    files = [tmp_path / "elsewhere" / name for name in ("a.nii.gz", "a_seg.nii.gz")]
    touch(*files)
    training = [{"image": str(files[0]), "label": str(files[1])}]
    decathlon(tmp_path / "task", [], [], training=training)
    (case,) = MsdReader(tmp_path / "task").cases(["MRI"])
    assert case.files == tuple(files)
    files[0].unlink()
    text = problems_of(MsdReader(tmp_path / "task"), "MRI")
    assert f"lists absolute paths, such as {files[0]}, none of which exists" in text
    assert "Make the paths relative to dataset.json" in text


def test_msd_test_images_with_labels_are_for_test(tmp_path: Path) -> None:
    held = [{"image": "./imagesTs/t.nii.gz", "label": "./labelsTs/t.nii.gz"}, {"image": "./imagesTs/u.nii.gz"}]
    decathlon(tmp_path, ["a.nii.gz"], ["t.nii.gz", "u.nii.gz"], test=held)
    found = {case.subject: (case.split, case.label) for case in MsdReader(tmp_path).cases(["MRI"])}
    assert found == {
        "a": (None, tmp_path / "labelsTr/a.nii.gz"),
        "t": ("test", tmp_path / "labelsTs/t.nii.gz"),
        "u": ("predict", None),
    }


def test_msd_reader_on_files_of_nnunet(tmp_path: Path) -> None:
    decathlon(tmp_path, ["a.nii.gz"], [])
    (tmp_path / "imagesTr/a.nii.gz").rename(tmp_path / "imagesTr/a_0000.nii.gz")
    assert "but a_0000.nii.gz does" in (text := problems_of(MsdReader(tmp_path), "MRI"))
    assert "with riskft.NnunetReader" in text


def test_nnunet_mapping_and_manifest_of_another_system(tmp_path: Path) -> None:
    touch(*(tmp_path / "imagesTr" / f"a_{part}.nii.gz" for part in ("t1", "t2", "seg")))
    paths = [f".\\imagesTr\\a_{part}.nii.gz" for part in ("t1", "t2", "seg")]
    root = raw_data(tmp_path, [], dataset={"a": {"images": paths[:2], "label": paths[2]}})
    expected = tuple(tmp_path / "imagesTr" / f"a_{part}.nii.gz" for part in ("t1", "seg"))
    assert NnunetReader(root).cases(["0"])[0].files == expected
    (tmp_path / "cases.csv").write_text(f"subject,t1,label\na,{paths[0]},{paths[2]}\n")
    assert ManifestReader(tmp_path / "cases.csv").cases(["t1"])[0].files == expected


def test_msd_without_the_folder_of_the_test_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    decathlon(tmp_path, ["a.nii.gz"], [], test=["./imagesTs/x.nii.gz", "./imagesTs/y.nii.gz"])
    with caplog.at_level(logging.WARNING):
        assert [case.subject for case in MsdReader(tmp_path).cases(["MRI"])] == ["a"]
    assert "skipped 2 test images" in caplog.text


def test_msd_test_images_are_for_prediction_whatever_the_split(tmp_path: Path) -> None:
    decathlon(tmp_path, [f"{k}.nii.gz" for k in range(10)], ["t.nii.gz"])
    cases = MsdReader(tmp_path).cases(["MRI"])
    assigned = FractionSplit(0.2, 0.2).assign(cases)
    assert {split: len(found) for split, found in assigned.items()} == {"train": 6, "val": 2, "test": 2, "predict": 1}
    with pytest.raises(InputError) as caught:
        ReaderSplit().assign(cases)
    assert caught.value.problems == tuple(map(str, range(10)))


def test_msd_lists_all_bad_entries(tmp_path: Path) -> None:
    good = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    training = [good, "b.nii.gz", {"image": "c.nii.gz"}, {"image": "imagesTr/", "label": "x"}, good]
    decathlon(tmp_path, [], [], training=training, test=[{"image": "imagesTs/d.nii.gz"}, 7, "imagesTs/a.nii"])
    text = problems_of(MsdReader(tmp_path), "MRI")
    assert "training entry 1 is 'b.nii.gz', expected an image and a label" in text
    assert "training entry 2 is {'image': 'c.nii.gz'}" in text
    assert "test entry 1 is 7" in text
    assert "subject 'a' is listed 3 times" in text
    assert text.count("\n") == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"training": None}, 'has no list "training"'),
        ({"training": {}}, "use riskft.NnunetReader for raw data of nnU-Net"),
        ({"training": []}, "lists no case"),
        ({"test": "x.nii"}, "'test' is a str, expected a list"),
    ],
)
def test_msd_entries_that_are_not_lists(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    decathlon(tmp_path, ["a.nii.gz"], [], **content)
    assert words in problems_of(MsdReader(tmp_path), "MRI")


# --- nnU-Net


def raw_data(root: Path, names: list[str], ending: str = ".nii.gz", channels: int = 2, **more: Any) -> Path:
    touch(*(root / "imagesTr" / f"{name}_{k:04d}{ending}" for name in names for k in range(channels)))
    touch(*(root / "labelsTr" / f"{name}{ending}" for name in names))
    channel_names = {str(k): f"MR{k}" for k in range(channels)}
    content = {"channel_names": channel_names, "labels": {"background": 0, "x": 1}, "file_ending": ending}
    return describe(root, **{**content, "numTraining": len(names), **more})


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_nnunet_names(tmp_path: Path, ending: str) -> None:
    raw_data(tmp_path, ["b_12", "a_0000"], ending)
    touch(tmp_path / "imagesTr" / f"._b_12_0000{ending}", tmp_path / "labelsTr" / f"._b_12{ending}")
    touch(tmp_path / "imagesTr" / "readme.json", tmp_path / "labelsTr" / "notes.txt")
    one, two = NnunetReader(tmp_path).cases(["mr1", "MR0"])
    assert (one.subject, two.subject) == ("a_0000", "b_12")
    assert list(two.images.items()) == [
        ("mr1", tmp_path / "imagesTr" / f"b_12_0001{ending}"),
        ("MR0", tmp_path / "imagesTr" / f"b_12_0000{ending}"),
    ]
    assert (one.label, one.split, one.channels) == (tmp_path / "labelsTr" / f"a_0000{ending}", None, {})
    assert all(path.is_file() for case in (one, two) for path in case.files)


def test_nnunet_missing_files_have_their_expected_path(tmp_path: Path) -> None:
    raw_data(tmp_path, ["a", "b", "c"])
    lost = [tmp_path / "imagesTr/a_0001.nii.gz", tmp_path / "labelsTr/b.nii.gz"]
    lost += [tmp_path / f"imagesTr/c_000{k}.nii.gz" for k in range(2)]
    for path in lost:
        path.unlink()
    cases = NnunetReader(tmp_path).cases(["MR0", "MR1"])
    faults = check({"train": cases}, LabelMap({"x": [1]}), voxels=False).faults
    assert {fault.path for fault in faults if fault.kind is FaultKind.MISSING} == set(lost)


def test_nnunet_test_images(tmp_path: Path) -> None:
    raw_data(tmp_path, ["a"], channels=1)
    touch(tmp_path / "imagesTs/t_0000.nii.gz")
    assert [(case.subject, case.label, case.split) for case in NnunetReader(tmp_path).cases(["MR0"])][1:] == [
        ("t", None, "predict")
    ]
    (tmp_path / "labelsTs").mkdir()
    assert [(case.subject, case.label, case.split) for case in NnunetReader(tmp_path).cases(["MR0"])][1:] == [
        ("t", tmp_path / "labelsTs/t.nii.gz", "test")
    ]
    assert [case.subject for case in NnunetReader(tmp_path, test=False).cases(["MR0"])] == ["a"]


def write_folds(path: Path, *folds: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(folds)))
    return path


@pytest.mark.parametrize("given", ["root", "folder", "file"])
def test_nnunet_folds(tmp_path: Path, given: str) -> None:
    root = raw_data(tmp_path / "raw", ["a", "b", "c", "d"], channels=1)
    touch(root / "imagesTs/t_0000.nii.gz", root / "labelsTs/t.nii.gz")
    folder = root if given == "root" else tmp_path / "nnUNet_preprocessed/Dataset001_X"
    name = "my_splits.json" if given == "file" else "splits_final.json"
    path = write_folds(folder / name, {"train": ["a", "b"], "val": ["c"]}, {"train": ["c", "d"], "val": ["a"]})
    splits = {"root": None, "folder": folder, "file": path}[given]
    cases = NnunetReader(root, fold=1, splits=splits).cases(["MR0"])
    assert [(case.subject, case.split) for case in cases] == [
        ("a", "val"),
        ("c", "train"),
        ("d", "train"),
        ("t", "test"),
    ]
    assert [len(found) for found in ReaderSplit().assign(cases).values()] == [2, 1, 1, 0]
    assert [case.split for case in NnunetReader(root, splits=splits).cases(["MR0"])] == [None] * 4 + ["test"]


@pytest.mark.parametrize(
    ("folds", "fold", "words"),
    [
        ([{"train": ["a"], "val": ["b"]}], 1, "has no fold 1: it holds 1 folds; folds count from 0"),
        ([{"train": ["a"], "val": ["b"]}], -1, "has no fold -1"),
        ([{"train": ["a"]}], 0, 'not an object with the lists of cases "train" and "val"'),
        ([["a"]], 0, "not an object with the lists"),
        ([{"train": [1], "val": ["b"]}], 0, "not an object with the lists"),
        (
            [{"train": ["a", "b", "y"], "val": ["b", "z"]}],
            0,
            "  - 'b' is in train and val: leave it in one\n  - 'y' is not a case of the data set\n  - 'z' is not",
        ),
    ],
)
def test_nnunet_folds_that_do_not_fit(tmp_path: Path, folds: list[Any], fold: int, words: str) -> None:
    raw_data(tmp_path, ["a", "b"])
    assert "splits_final.json is not a file: set the reader's splits" in problems_of(NnunetReader(tmp_path, 0), "MR0")
    write_folds(tmp_path / "splits_final.json", *folds)
    assert words in problems_of(NnunetReader(tmp_path, fold), "MR0")
    (tmp_path / "splits_final.json").write_text("{}")
    assert "it holds a dict" in problems_of(NnunetReader(tmp_path, 0), "MR0")


def test_nnunet_dataset_mapping(tmp_path: Path) -> None:
    elsewhere = tmp_path / "else"
    dataset = {
        "b": {"images": ["../else/b_t1.nii.gz", "../else/b_t2.nii.gz"], "label": "../else/b_seg.nii.gz"},
        "a": {"images": [str(elsewhere / "a1.nii.gz"), str(elsewhere / "a2.nii.gz")], "label": "a.nii.gz"},
    }
    root = raw_data(tmp_path / "raw", ["not_in_the_mapping"], dataset=dataset)
    one, two = NnunetReader(root).cases(["MR1"])
    assert (one.subject, one.images, one.label) == ("a", {"MR1": elsewhere / "a2.nii.gz"}, root / "a.nii.gz")
    assert two.images["MR1"].resolve() == elsewhere / "b_t2.nii.gz"


def test_nnunet_lists_all_bad_entries_of_the_mapping(tmp_path: Path) -> None:
    dataset = {
        "a/b": {"images": ["1", "2"], "label": "l"},
        "c": {"images": ["1"], "label": "l"},
        "d": {"images": ["1", "2"]},
        "e": {"images": [1, 2], "label": "l"},
        "f": "1",
        "g": {"images": ["1", "2"], "label": "l"},
    }
    text = problems_of(NnunetReader(raw_data(tmp_path, [], dataset=dataset)), "MR0")
    assert [line.split(", ")[0] for line in text.splitlines()[1:]] == [
        "  - 'a/b' cannot name files: leave out slashes and a leading dot",
        "  - 'c' has 1 images",
        "  - 'd' has the label None",
        "  - 'e' has no list of paths as its images",
        "  - 'f' has no list of paths as its images",
    ]
    assert "not an object with cases" in problems_of(NnunetReader(raw_data(tmp_path, [], dataset={})), "MR0")


def test_nnunet_1(tmp_path: Path) -> None:
    training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    touch(tmp_path / "imagesTr/a_0000.nii.gz", tmp_path / "imagesTr/a_0001.nii.gz", tmp_path / "labelsTr/a.nii.gz")
    describe(tmp_path, modality={"0": "T2", "1": "ADC"}, labels={"0": "background", "1": "PZ"}, training=training)
    (case,) = NnunetReader(tmp_path).cases(["adc"])
    assert case.files == (tmp_path / "imagesTr/a_0001.nii.gz", tmp_path / "labelsTr/a.nii.gz")
    assert NnunetReader(tmp_path).label_map() == LabelMap({"PZ": [1]})


def test_folders_that_are_not_nnunet_data(tmp_path: Path) -> None:
    root = raw_data(tmp_path / "a", [])
    assert "these folders do not exist" in problems_of(NnunetReader(root), "MR0")
    (root / "imagesTr").mkdir()
    assert "labelsTr" in problems_of(NnunetReader(root), "MR0")
    (root / "labelsTr").mkdir()
    assert "hold no case" in problems_of(NnunetReader(root), "MR0")
    touch(root / "imagesTr/x.nii.gz")
    assert "use riskft.MsdReader for data whose files have no channel number" in problems_of(NnunetReader(root), "MR0")
    for ending, words in ((".png", "'file_ending' is '.png', expected one of .nii.gz"), (None, "is None")):
        other = raw_data(tmp_path / "b", ["x"], ".png", file_ending=ending)
        assert words in problems_of(NnunetReader(other), "MR0")


# --- BIDS


def bids(root: Path, *names: str, pipeline: str = "labels") -> Path:
    """Makes files by name; those that end in dseg or mask belong to the pipeline."""
    for name in names:
        unit = "/".join(part for part in name.split("_") if part.startswith(("sub-", "ses-")))
        ends = name.removesuffix(".nii").removesuffix(".nii.gz").endswith(("dseg", "mask", "lesion"))
        file = name if name.endswith(".nii") else f"{name}.nii.gz"
        touch((root / "derivatives" / pipeline if ends else root) / unit / "anat" / file)
    return root


def test_bids_subjects(tmp_path: Path) -> None:
    bids(tmp_path, "sub-02_T1w", "sub-02_FLAIR.nii", "sub-02_dseg", "sub-01_T1w", "sub-01_FLAIR", "sub-01_T1w_mask")
    touch(tmp_path / "sub-01/anat/._sub-01_T1w.nii.gz", tmp_path / "sub-01/anat/sub-01_T1w.json")
    touch(tmp_path / "sub-03/func/sub-03_task-rest_bold.nii.gz", tmp_path / "participants.tsv")
    touch(tmp_path / "derivatives/labels/dataset_description.json", tmp_path / "derivatives/README")
    one, two = BidsReader(tmp_path).cases(["flair", "T1w"])
    assert (one.subject, one.label, one.split, one.channels) == ("sub-01", tmp_path / EXPECTED, None, {})
    assert list(two.images.items()) == [
        ("flair", tmp_path / "sub-02/anat/sub-02_FLAIR.nii"),
        ("T1w", tmp_path / "sub-02/anat/sub-02_T1w.nii.gz"),
    ]
    assert two.label == tmp_path / "derivatives/labels/sub-02/anat/sub-02_dseg.nii.gz"


EXPECTED = "derivatives/labels/sub-01/anat/sub-01_dseg.nii.gz"


def test_bids_sessions(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_ses-a_T1w", "sub-01_ses-b_T1w", "sub-01_ses-b_desc-x_dseg", "sub-02_T1w")
    touch(tmp_path / "sub-02/ses-c/func/x.nii.gz")
    cases = BidsReader(tmp_path).cases(["t1w"])
    assert [case.subject for case in cases] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert [case.label is None for case in cases] == [True, False, True]
    assert cases[1].label == tmp_path / "derivatives/labels/sub-01/ses-b/anat/sub-01_ses-b_desc-x_dseg.nii.gz"
    (chosen,) = BidsReader(tmp_path, entities={"ses": "b"}).cases(["t1w"])
    assert chosen.subject == "sub-01_ses-b"
    assert "no case such as" in problems_of(BidsReader(tmp_path, entities={"ses": "z"}), "t1w")
    folder = tmp_path / "derivatives/labels/sub-01/ses-a"
    folder.mkdir()
    (first,) = BidsReader(tmp_path, entities={"ses": "a"}).cases(["t1w"])
    assert first.label == folder / "anat/sub-01_ses-a_dseg.nii.gz"


def test_bids_labels_that_are_expected(tmp_path: Path) -> None:
    bids(tmp_path, *(f"sub-0{k}_space-orig_T1w" for k in (1, 2, 3, 4)), "sub-01_space-orig_desc-final_dseg")
    bids(tmp_path, "sub-06_space-orig_desc-final_dseg")
    touch(tmp_path / "derivatives/labels/sub-02/anat/sub-02_dseg.json")
    (tmp_path / "derivatives/labels/sub-03").mkdir()
    (tmp_path / "sub-05").mkdir()
    (tmp_path / "sub-04/anat/sub-04_space-orig_T1w.nii.gz").unlink()
    cases = {case.subject: case for case in BidsReader(tmp_path).cases(["t1w"])}
    promised = tmp_path / "derivatives/labels/sub-02/anat/sub-02_space-orig_desc-final_dseg.nii.gz"
    assert cases["sub-02"].label == promised
    assert cases["sub-03"].label is not None
    assert cases["sub-04"].label is None
    for lost in ("sub-04", "sub-05", "sub-06"):
        assert cases[lost].images["t1w"] == tmp_path / lost / "anat" / f"{lost}_space-orig_T1w.nii.gz"
    faults = check({"train": [cases["sub-02"]], "predict": [cases["sub-05"]]}, LabelMap({"x": [1]})).faults
    missing = {fault.path for fault in faults if fault.kind is FaultKind.MISSING}
    assert missing == {promised, cases["sub-05"].images["t1w"]}


def test_bids_several_images(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_acq-hr_T1w", "sub-01_T1w", "sub-02_T1w", "sub-03_acq-lr_T1w", "sub-03_run-1_T1w")
    text = problems_of(BidsReader(tmp_path), "t1w")
    assert "sub-01 has 2 files for t1w: sub-01_T1w.nii.gz, sub-01_acq-hr_T1w.nii.gz; select one with" in text
    assert "sub-03 has 2 files for t1w: sub-03_acq-lr_T1w.nii.gz, sub-03_run-1_T1w.nii.gz" in text

    def names(**entities: str) -> list[str]:
        cases = BidsReader(tmp_path, entities=entities).cases(["t1w"])
        return [case.images["t1w"].name.removesuffix(".nii.gz") for case in cases]

    assert names(acq="hr") == ["sub-01_acq-hr_T1w", "sub-02_T1w", "sub-03_run-1_T1w"]
    with pytest.raises(InputError, match="sub-01 has 2 files"):
        names(run="1")
    assert names(acq="") == ["sub-01_T1w", "sub-02_T1w", "sub-03_run-1_T1w"]


def test_bids_modalities_with_entities(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_T1w", "sub-01_ce-gd_T1w", "sub-02_T1w")
    one, two = BidsReader(tmp_path, entities={"ce": ""}).cases(["t1w", "ce-gd_t1w"])
    assert [path.name for path in one.images.values()] == ["sub-01_T1w.nii.gz", "sub-01_ce-gd_T1w.nii.gz"]
    assert [path.name for path in two.images.values()] == ["sub-02_T1w.nii.gz", "sub-02_ce-gd_T1w.nii.gz"]


def test_bids_several_labels(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_T1w", "sub-01_label-L_mask", "sub-01_label-R_mask", "sub-02_T1w", "sub-02_label-L_mask")
    text = problems_of(BidsReader(tmp_path, suffix="mask"), "t1w")
    assert "sub-01 has 2 files for the label: sub-01_label-L_mask.nii.gz, sub-01_label-R_mask.nii.gz; select" in text
    reader = BidsReader(tmp_path, suffix="mask", label_entities={"label": "L"})
    assert [case.label.name[:14] for case in reader.cases(["t1w"]) if case.label] == [
        "sub-01_label-L",
        "sub-02_label-L",
    ]
    assert reader.label_map() == LabelMap({"L": [1]})


def test_bids_pipelines(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    bids(root, "sub-01_T1w", "sub-01_dseg")
    bids(root, "sub-01_dseg", pipeline="fast")
    bids(root, "sub-01_mask", pipeline="brains")
    text = problems_of(BidsReader(root), "t1w")
    assert text.endswith("set the reader's derivatives to one of them.\n  - fast\n  - labels")
    assert "There is no pipeline slow" in problems_of(BidsReader(root, "slow"), "t1w")
    assert "['brains', 'fast', 'labels']" in problems_of(BidsReader(root, "slow"), "t1w")
    text = problems_of(BidsReader(root, "brains"), "t1w")
    assert "has no label sub-*/anat/*_dseg.nii.gz" in text
    assert "sub-01_mask.nii.gz" in text
    bids(root, "sub-01_desc-y_dseg", pipeline="slow")
    text = problems_of(BidsReader(root, "slow", label_entities={"desc": "x"}), "t1w")
    assert "with the entities {'desc': 'x'} (found first: sub-01_desc-y_dseg.nii.gz)" in text
    bids(tmp_path / "apart", "sub-01_dseg")
    for given in ("fast", root / "derivatives/fast", tmp_path / "apart/derivatives/labels"):
        (case,) = BidsReader(root, given).cases(["t1w"])
        assert case.label is not None
        assert case.label.is_file()
        assert case.label.parents[2] == (root / "derivatives/fast" if given == "fast" else given)


def test_bids_labels_of_other_names_and_straight_in_derivatives(tmp_path: Path) -> None:
    touch(tmp_path / "sub-01/anat/sub-01_T2w.nii.gz", tmp_path / "derivatives/sub-01/anat/sub-01_T2w_lesion-manual.nii")
    (case,) = BidsReader(tmp_path, suffix="T2w_lesion-manual").cases(["t2w"])
    assert case.label == tmp_path / "derivatives/sub-01/anat/sub-01_T2w_lesion-manual.nii"


def test_bids_without_labels(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_T1w")
    reader = BidsReader(tmp_path)
    assert [case.label for case in reader.cases(["t1w"])] == [None]
    assert reader.label_map() is None


def test_folders_that_are_not_bids(tmp_path: Path) -> None:
    assert "is not a folder" in problems_of(BidsReader(tmp_path / "nowhere"), "t1w")
    assert "holds no case such as sub-01/anat" in problems_of(BidsReader(tmp_path), "t1w")
    bids(tmp_path, "sub-01_T1w", "sub-01_PDw")
    text = problems_of(BidsReader(tmp_path), "t1w", "flair", "T1")
    assert "has no image ['flair', 'T1']" in text
    assert "it has ['PDw', 'T1w']" in text


def table(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_bids_lookup_table_of_the_pipeline(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_T1w", "sub-01_desc-a_dseg", "sub-01_desc-b_dseg")
    folder = tmp_path / "derivatives/labels"
    table(folder / "desc-a_dseg.tsv", "index\tname\tcolor", "0\tBackground\t#000", "1\tGrey Matter\t#111", "12\tWM\t")
    table(folder / "desc-b_dseg.tsv", "name\tindex", "lesion\t3")
    table(folder / "participants.tsv", "participant_id", "sub-01")
    assert BidsReader(tmp_path, label_entities={"desc": "a"}).label_map() == LabelMap({"Grey_Matter": [1], "WM": [12]})
    assert BidsReader(tmp_path, label_entities={"desc": "b"}).label_map() == LabelMap({"lesion": [3]})
    with pytest.raises(InputError, match=r"several tables: desc-a_dseg.tsv, desc-b_dseg.tsv"):
        BidsReader(tmp_path).label_map()


def test_bids_lookup_tables_beside_the_labels(tmp_path: Path) -> None:
    bids(tmp_path, "sub-01_T1w", "sub-01_dseg", "sub-02_T1w", "sub-02_dseg")
    assert BidsReader(tmp_path).label_map() is None
    beside = [tmp_path / f"derivatives/labels/sub-0{k}/anat/sub-0{k}_dseg.tsv" for k in (1, 2)]
    for path in beside:
        table(path, "index\tname", "1\tlesion")
    assert BidsReader(tmp_path).label_map() == LabelMap({"lesion": [1]})
    table(beside[1], "index\tname", "2\tlesion")
    with pytest.raises(InputError) as caught:
        BidsReader(tmp_path).label_map()
    assert caught.value.problems == (str(beside[1]),)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["index,name", "1,a"], "no column ['index', 'name'] among ['index,name']"),
        (["index\tname", "x\ta", "1\t", "2\tb", "2\tc", "3\tb"], "line 3: index '1' and name ''"),
        (["index\tname", "2\tb", "2\tc", "3\tb"], "line 4: 'b' or 3 occurs twice"),
        (["index\tname", "0\tb"], "labels.classes is empty"),
        ([""], "no column"),
    ],
)
def test_bids_lookup_tables_that_are_not_usable(tmp_path: Path, lines: list[str], words: str) -> None:
    table(bids(tmp_path, "sub-01_T1w", "sub-01_dseg") / "derivatives/labels/dseg.tsv", *lines)
    with pytest.raises(InputError) as caught:
        BidsReader(tmp_path).label_map()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("MsdReader", {"root": "x", "test": False}),
        ("NnunetReader", {"root": "x", "fold": 0, "splits": "y"}),
        ("BidsReader", {"root": "x", "derivatives": "y", "entities": {"run": "01"}, "label_entities": {"desc": "z"}}),
    ],
)
def test_readers_are_built_from_yaml(name: str, arguments: dict[str, Any]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--reader", type=Reader)
    config = parser.parse_object({"reader": {"class_path": f"riskft.{name}", "init_args": arguments}})
    assert type(parser.instantiate_classes(config).reader).__name__ == name


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="RISKFT_DATA does not name the folder of the development data")
def test_the_same_real_volumes_in_every_layout(tmp_path: Path) -> None:
    folders = sorted((Path(str(DATA)) / "msd_hippocampus").iterdir())[:8]

    def link(target: Path, source: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)

    for k, folder in enumerate(folders):
        image, label = folder / "t1.nii.gz", folder / "label.nii.gz"
        link(tmp_path / f"msd/imagesTr/{folder.name}.nii.gz", image)
        link(tmp_path / f"nnunet/imagesTr/{folder.name}_0000.nii.gz", image)
        link(tmp_path / f"bids/sub-{k}/anat/sub-{k}_T1w.nii.gz", image)
        for path in (f"msd/labelsTr/{folder.name}", f"nnunet/labelsTr/{folder.name}"):
            link(tmp_path / f"{path}.nii.gz", label)
        link(tmp_path / f"bids/derivatives/manual/sub-{k}/anat/sub-{k}_dseg.nii.gz", label)
    pairs = [{part: f"./{part}sTr/{folder.name}.nii.gz" for part in ("image", "label")} for folder in folders]
    names = {"0": "background", "1": "Anterior", "2": "Posterior"}
    describe(tmp_path / "msd", modality={"0": "T1w"}, labels=names, training=pairs, test=[])
    values = {name: int(value) for value, name in names.items()}
    describe(tmp_path / "nnunet", channel_names={"0": "T1w"}, labels=values, file_ending=".nii.gz")
    table(tmp_path / "bids/derivatives/manual/dseg.tsv", "index\tname", *(f"{key}\t{names[key]}" for key in names))
    found = []
    for reader in (MsdReader(tmp_path / "msd"), NnunetReader(tmp_path / "nnunet"), BidsReader(tmp_path / "bids")):
        labels = reader.label_map()
        assert labels == LabelMap({"Anterior": [1], "Posterior": [2]})
        report = check({"train": reader.cases(["t1w"])}, labels)
        report.raise_if_faulty()
        found.append([(row.shape, dict(row.intensity), dict(row.voxels)) for row in report.rows])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(folders)
