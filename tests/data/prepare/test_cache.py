"""Preprocessed cases: made once, found again, never half."""

import json
import multiprocessing
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio

from riskft.data.labels import LabelMap
from riskft.data.prepare import cache as cache_module
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.records import Case
from riskft.errors import InputError

SHAPE = (8, 6, 5)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
LABELS = LabelMap({"blob": [1], "tip": [2]}, ignore=[9])
OPTIONS = Preprocessing(margin=0)


def save(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def make(folder: Path, subject: str, seed: int = 0) -> Case:
    image = np.random.default_rng(seed).uniform(1, 9, SHAPE).astype(np.float32)
    image[0, 0, 0] = 0
    label = np.zeros(SHAPE, np.uint8)
    label[2:4, 2:4, 2:4] = 1
    label[4, 2, 2:4] = 2
    label[5, :, 0] = 9
    images = {"t1": save(folder / f"{subject}_t1.nii", image), "t2": save(folder / f"{subject}_t2.nii", image + 1)}
    return Case(subject, images, save(folder / f"{subject}_label.nii", label))


@pytest.fixture
def cases(tmp_path):
    (tmp_path / "data").mkdir()
    return [make(tmp_path / "data", f"p{number}", seed=number) for number in range(3)]


def caching(tmp_path, labels=LABELS, options=OPTIONS):
    return PreparedCache(tmp_path / "cache", labels, options)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_in_the_folder(tmp_path, cases):
    prepared = caching(tmp_path).prepare(cases)
    assert [case.subject for case in prepared] == ["p0", "p1", "p2"]
    assert len({case.key for case in prepared}) == 3
    for case in prepared:
        assert {path.name for path in case.folder.iterdir()} == {"image.nii", "label.nii", "mask.nii", "meta.json"}
        assert nib.load(case.folder / "image.nii").shape == (*SHAPE, 2)
        # 8 and 2 voxels of classes, 6 ignored: they count nowhere
        assert json.loads((case.folder / "meta.json").read_text())["voxels_per_class"] == [240 - 8 - 2 - 6, 8, 2]
        assert case.foreground_fraction == pytest.approx(10 / 234)
    subject = prepared[1].to_subject()
    assert subject["image"].data.shape == (2, *SHAPE)
    assert subject["image"].data.dtype == torch.float32
    assert subject["label"].data.unique().tolist() == [0, 1, 2, 255]
    assert subject["name"] == "p1"
    assert subject["foreground_fraction"].item() == pytest.approx(10 / 234)
    assert "weight" not in subject
    weight = tio.ScalarImage(prepared[1].folder / "mask.nii")
    assert prepared[1].to_subject(weight=weight)["weight"] is weight


def test_a_case_without_label(tmp_path, cases):
    (prepared,) = caching(tmp_path).prepare([Case("p9", cases[0].images)])
    assert not (prepared.folder / "label.nii").exists()
    assert prepared.foreground_fraction == 0
    assert "label" not in prepared.to_subject()
    (labelled,) = caching(tmp_path).prepare(cases[:1])
    assert labelled.key != prepared.key


def test_a_second_time_nothing_is_done(tmp_path, cases, monkeypatch):
    first = caching(tmp_path).prepare(cases)
    before = snapshot(tmp_path / "cache")

    def fail(*_):
        raise AssertionError("work was done again")

    monkeypatch.setattr(cache_module, "preprocess", fail)
    monkeypatch.setattr(cache_module, "file_digest", fail)
    assert caching(tmp_path).prepare(cases) == first
    assert caching(tmp_path).prepare(cases[::-1], workers=2) == first[::-1]
    assert snapshot(tmp_path / "cache") == before


def test_a_moved_data_set_is_found_again(tmp_path, cases, monkeypatch):
    keys = [case.key for case in caching(tmp_path).prepare(cases)]
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    moved = [
        Case(
            f"other-{case.subject}",
            {name: tmp_path / "moved" / path.name for name, path in case.images.items()},
            tmp_path / "moved" / case.files[-1].name,
        )
        for case in cases
    ]
    monkeypatch.setattr(cache_module, "preprocess", None)
    assert [case.key for case in caching(tmp_path).prepare(moved)] == keys


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (LabelMap({"blob": [1, 2]}, ignore=[9]), OPTIONS),
        (LabelMap({"tip": [2], "blob": [1]}, ignore=[9]), OPTIONS),  # other indices
        (LabelMap({"blob": [2], "tip": [1]}, ignore=[9]), OPTIONS),
        (LabelMap({"blob": [1], "tip": [2]}, background=[0, 9]), OPTIONS),
        (LABELS, Preprocessing(margin=1)),
        (LABELS, Preprocessing(margin=0, spacing=(1, 2, 2))),
        (LABELS, Preprocessing(margin=0, crop=False)),
        (LABELS, Preprocessing(margin=0, intensity=None)),
    ],
)
def test_another_label_map_or_preprocessing_is_another_case(tmp_path, cases, labels, options):
    (first,) = caching(tmp_path).prepare(cases[:1])
    (second,) = caching(tmp_path, labels, options).prepare(cases[:1])
    assert first.key != second.key
    expected = labels.to_classes(np.asarray(nib.load(cases[0].files[-1]).dataobj))
    found = np.bincount(np.asarray(nib.load(second.folder / "label.nii").dataobj).ravel(), minlength=256)
    if options == OPTIONS:
        np.testing.assert_array_equal(found, np.bincount(expected.ravel(), minlength=256))


@pytest.mark.parametrize("file", [0, 1, 2])
def test_another_content_is_another_case(tmp_path, cases, file):
    before = caching(tmp_path).prepare(cases)
    path = cases[1].files[file]
    array = np.asarray(nib.load(path).dataobj).copy()
    array[3, 3, 3] = 2
    save(path, array)  # of the same size
    after = caching(tmp_path).prepare(cases)
    assert [old.key == new.key for old, new in zip(before, after, strict=True)] == [True, False, True]


def test_channels_in_another_order_are_another_case(tmp_path, cases):
    turned = Case("p0", dict(reversed(cases[0].images.items())), cases[0].label)
    first, second = caching(tmp_path).prepare([cases[0], turned])
    assert first.key != second.key
    # though the files have the same content
    renamed = Case("p0", {"t1": cases[0].images["t1"], "flair": cases[0].images["t2"]}, cases[0].label)
    assert caching(tmp_path).prepare([renamed])[0].key not in {first.key, second.key}


def test_incomplete_folders_are_not_reused(tmp_path, cases, monkeypatch):
    (key,) = caching(tmp_path).keys(cases[:1])
    folder = tmp_path / "cache" / "cases"
    real = cache_module.write_json

    def killed(path, value):
        if path.name == "meta.json":
            raise KeyboardInterrupt
        real(path, value)

    monkeypatch.setattr(cache_module, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        caching(tmp_path).prepare(cases[:1])
    assert list(folder.iterdir()) == []
    # a harder death leaves its folder behind
    left = folder / f".tmp-00000000-{key}"
    left.mkdir()
    (left / "image.nii").write_bytes(b"half")
    monkeypatch.undo()
    (prepared,) = caching(tmp_path).prepare(cases[:1])
    assert prepared.folder == folder / key
    assert prepared.to_subject()["image"].data.isfinite().all()


def test_all_bad_cases_are_in_one_error(tmp_path, cases):
    save(cases[0].files[-1], np.full(SHAPE, 7, np.uint8))
    cases[2].images["t1"].write_bytes(b"no image")
    with pytest.raises(InputError, match="2 of 3 cases cannot be preprocessed") as caught:
        caching(tmp_path).prepare(cases, workers=2)
    assert len(caught.value.problems) == 2
    assert "p0_label.nii" in str(caught.value)
    assert "p2_t1.nii" in str(caught.value)
    # the sound one is kept
    assert len(list((tmp_path / "cache" / "cases").iterdir())) == 1


def test_all_missing_files_are_in_one_error(tmp_path, cases):
    cases[0].images["t2"].unlink()
    cases[1].files[-1].unlink()
    with pytest.raises(InputError, match="2 of 3 cases have files that cannot be read") as caught:
        caching(tmp_path).prepare(cases)
    assert ["p0_t2.nii" in caught.value.problems[0], "p1_label.nii" in caught.value.problems[1]] == [True, True]


def slowly(case, labels, options, real=cache_module.preprocess):
    volumes = real(case, labels, options)
    time.sleep(0.2)  # until the others have seen that it is missing too
    return volumes


@pytest.mark.parametrize("workers", [1, 4])
def test_threads_that_prepare_the_same_case(tmp_path, cases, monkeypatch, workers):
    monkeypatch.setattr(cache_module, "preprocess", slowly)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(caching(tmp_path).prepare, [*cases, cases[0]], workers) for _ in range(3)]
        results = [job.result() for job in jobs]
    assert results[0] == results[1] == results[2]
    assert len(list((tmp_path / "cache" / "cases").iterdir())) == 3  # and no temporary folder
    assert all(case.to_subject()["image"].data.isfinite().all() for case in results[0])


def prepare_in_a_process(root: Path, cases: list[Case], barrier) -> None:
    cache_module.preprocess = slowly
    barrier.wait()
    PreparedCache(root, LABELS, OPTIONS).prepare(cases)


def test_processes_that_prepare_the_same_case(tmp_path, cases):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    arguments = (tmp_path / "cache", cases[:1], barrier)
    processes = [context.Process(target=prepare_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache" / "cases").iterdir())) == 1
    json.loads((tmp_path / "cache" / "digests.json").read_text())


@pytest.mark.parametrize("listed", [".img", ".hdr"])
@pytest.mark.parametrize("changed", [".img", ".hdr"])
def test_an_analyze_pair_is_both_of_its_files(tmp_path, listed, changed):
    image = np.random.default_rng(0).uniform(1, 9, SHAPE).astype(np.float32)
    nib.save(nib.Spm99AnalyzeImage(image, AFFINE), tmp_path / "t1.img")
    case = Case("p0", {"t1": tmp_path / f"t1{listed}"})
    (before,) = caching(tmp_path).prepare([case])
    path = tmp_path / f"t1{changed}"
    content = bytearray(path.read_bytes())
    content[300 if changed == ".img" else 150] ^= 1  # a voxel, or a letter of the description
    path.write_bytes(content)
    (after,) = caching(tmp_path).prepare([case])
    assert before.key != after.key


def test_a_digest_is_taken_again_after_a_touch(tmp_path, cases, monkeypatch):
    caching(tmp_path).prepare(cases[:1])
    read = []
    real = cache_module.file_digest
    monkeypatch.setattr(cache_module, "file_digest", lambda path: read.append(path) or real(path))
    path = cases[0].images["t1"]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10))
    caching(tmp_path).prepare(cases[:1])
    assert read == [path]
