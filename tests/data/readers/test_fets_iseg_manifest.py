"""Readers find the files of each layout and naming, and report all that is wrong with a manifest."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
from jsonargparse import ArgumentParser

from riskft.data.check.data_set import FaultKind, check
from riskft.data.labels import LabelMap
from riskft.data.readers import Brats2023Reader, FetsReader, IsegReader, ManifestReader, Reader
from riskft.data.records import SPLITS
from riskft.data.splits import ReaderSplit
from riskft.errors import InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
DATA = os.environ.get("RISKFT_DATA")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def fill(folder: Path, *names: str, ending: str = ".nii.gz") -> None:
    for name in names:
        touch(folder / f"{folder.name}_{name}{ending}")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("group", ["", "HGG", "LGG"])
@pytest.mark.parametrize(
    "subject", ["BraTS20_Training_001", "FeTS21_Training_001", "BraTS2021_00000", "Brats18_2013_0_1"]
)
def test_fets_names(tmp_path: Path, subject: str, group: str, ending: str) -> None:
    folder = tmp_path / group / subject
    fill(folder, *MODALITIES, "seg", ending=ending)
    touch(tmp_path / "name_mapping.csv")
    touch(tmp_path / "__MACOSX" / f"._{subject}_t1.nii.gz")
    (case,) = FetsReader(tmp_path).cases(["flair", "t1"])
    assert (case.subject, list(case.images), case.split) == (subject, ["flair", "t1"], None)
    assert case.images["flair"] == folder / f"{subject}_flair{ending}"
    assert case.label == folder / f"{subject}_seg{ending}"
    assert all(path.is_file() for path in case.files)


def test_fets_takes_the_only_file_like_a_label(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS20_Training_355"
    fill(folder, *MODALITIES, ending=".nii")
    touch(folder / "W39_1998.09.19_Segm.nii")
    touch(folder / "._W39_1998.09.19_Segm.nii")
    assert FetsReader(tmp_path).cases(["t1"])[0].label == folder / "W39_1998.09.19_Segm.nii"
    touch(folder / "other_SEG.nii")
    assert FetsReader(tmp_path).cases(["t1"])[0].label == folder / "BraTS20_Training_355_seg.nii"


@pytest.mark.parametrize(
    ("subject", "promised"),
    [
        ("BraTS20_Validation_001", False),
        ("FeTS21_Validation_001", False),
        ("BraTS2021_00001", False),
        ("BraTS20_Training_001", True),
        ("HGG/Brats18_2013_0_1", True),
    ],
)
def test_fets_without_label(tmp_path: Path, subject: str, promised: bool) -> None:
    folder = tmp_path / subject
    fill(folder, *MODALITIES)
    label = FetsReader(tmp_path).cases(["t1"])[0].label
    assert label == (folder / f"{folder.name}_seg.nii.gz" if promised else None)


def test_fets_missing_files_have_their_expected_path(tmp_path: Path) -> None:
    fill(tmp_path / "FeTS21_Training_001", "t1", "seg", ending=".nii")
    (tmp_path / "FeTS21_Training_002").mkdir()
    one, two = FetsReader(tmp_path).cases(["t1", "flair"])
    assert one.images["flair"] == tmp_path / "FeTS21_Training_001/FeTS21_Training_001_flair.nii"
    assert two.images["t1"] == tmp_path / "FeTS21_Training_002/FeTS21_Training_002_t1.nii.gz"
    faults = check({"train": [one, two]}, LabelMap({"tumour": [1]}), voxels=False).faults
    missing = {fault.path for fault in faults if fault.kind is FaultKind.MISSING}
    assert missing == {one.images["flair"], *two.files}


def test_brats_2023(tmp_path: Path) -> None:
    folder = tmp_path / "BraTS-GLI-00000-000"
    for name in ("t1n", "t1c", "t2w", "t2f", "seg"):
        touch(folder / f"{folder.name}-{name}.nii.gz")
    (case,) = Brats2023Reader(tmp_path).cases(MODALITIES)
    assert [path.name[-10:-7] for path in case.files] == ["t1n", "t1c", "t2w", "t2f", "seg"]
    assert all(path.is_file() for path in case.files)
    assert 3 in Brats2023Reader.known_labels
    assert FetsReader.known_labels == {0, 1, 2, 4}


def analyze(folder: Path, subject: str, kind: str, ending: str = ".hdr") -> None:
    touch(folder / f"{subject}-{kind}{ending}")
    if ending == ".hdr":
        touch(folder / f"{subject}-{kind}.img")


@pytest.mark.parametrize("ending", [".hdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("folders", [False, True])
def test_iseg(tmp_path: Path, ending: str, folders: bool) -> None:
    for number in (10, 2, 1):
        folder = tmp_path / f"iSeg/subject-{number}" if folders else tmp_path
        for kind in ("T1", "t2", *(["label"] if number != 10 else [])):
            analyze(folder, f"subject-{number}", kind, ending)
    cases = IsegReader(tmp_path).cases(["t2", "t1"])
    assert [case.subject for case in cases] == ["subject-1", "subject-2", "subject-10"]
    assert [case.label is None for case in cases] == [False, False, True]
    assert list(cases[0].images) == ["t2", "t1"]
    assert cases[0].images["t1"].name == f"subject-1-T1{ending}"
    assert all(path.is_file() for case in cases for path in case.files)


def test_iseg_missing_files_have_their_expected_path(tmp_path: Path) -> None:
    folder = tmp_path / "iSeg-2019-Training"
    touch(folder / "subject-3-T1.img")
    (case,) = IsegReader(tmp_path).cases(["t1", "t2"])
    assert [path.name for path in case.files] == ["subject-3-T1.hdr", "subject-3-T2.hdr", "subject-3-label.hdr"]


def test_iseg_lists_duplicate_files(tmp_path: Path) -> None:
    for year in ("2017", "2019"):
        for kind in ("T1", "T2"):
            analyze(tmp_path / year, "subject-1", kind)
    with pytest.raises(InputError) as caught:
        IsegReader(tmp_path).cases(["t1"])
    assert len(caught.value.problems) == 2


def test_iseg_reads_real_analyze(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (5, 7, 4, 1)).astype(np.int16)
    for kind in ("T1", "T2"):
        nib.save(nib.AnalyzeImage(voxels + len(kind), np.diag([-1, 1, 2, 1])), tmp_path / f"subject-1-{kind}.hdr")
    label = np.where(voxels > 450, 150, 10).astype(np.int16)
    nib.save(nib.AnalyzeImage(label, np.diag([-1, 1, 2, 1])), tmp_path / "subject-1-label.hdr")
    reader = IsegReader(tmp_path)
    labels = LabelMap({"grey": [150]}).with_known(reader.known_labels)
    report = check({"train": reader.cases(["t1", "t2"])}, labels)
    report.raise_if_faulty()
    assert report.rows[0].spacing == (1, 1, 2)
    assert report.rows[0].voxels["grey"] == (label == 150).sum()


@pytest.mark.parametrize("reader", [FetsReader, Brats2023Reader, IsegReader])
def test_root_and_modalities_are_checked(tmp_path: Path, reader: type[FetsReader | IsegReader]) -> None:
    with pytest.raises(InputError, match=r"'pd'.*it has \['t1'"):
        reader(tmp_path).cases(["t1", "pd"])
    with pytest.raises(InputError, match="is not a folder"):
        reader(tmp_path / "absent").cases(["t1"])
    touch(tmp_path / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_001" / "readme.txt")
    with pytest.raises(InputError, match="holds no"):
        reader(tmp_path).cases(["t1"])


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_manifest(tmp_path: Path) -> None:
    lines = ("\ufeffsubject, split,t1,t2,label,age", "b,val,b/1.nii,/x/2.nii,b/s.nii,", "", "a,predict,1.nii,2.nii,,40")
    path = write(tmp_path / "cases.csv", *lines)
    one, two = ManifestReader(path).cases(["t2", "t1"])
    assert (one.subject, one.split, one.label) == ("a", "predict", None)
    assert (two.subject, two.split, two.label) == ("b", "val", tmp_path / "b/s.nii")
    assert list(two.images.items()) == [("t2", Path("/x/2.nii")), ("t1", tmp_path / "b/1.nii")]
    assert ManifestReader(path, "/data").cases(["t1"])[0].images["t1"] == Path("/data/1.nii")


def test_manifest_of_one_modality(tmp_path: Path) -> None:
    (case,) = ManifestReader(str(write(tmp_path / "cases.csv", "subject,image", "a,a.nii"))).cases(["image"])
    assert (case.images, case.label, case.split) == ({"image": tmp_path / "a.nii"}, None, None)


def test_manifest_lists_all_bad_lines(tmp_path: Path) -> None:
    lines = [
        "subject,split,t1,label",
        "a,train,a.nii,s.nii",
        ",train,b.nii,s.nii",
        "c,training,,s.nii",
        "a,val,d.nii,s.nii",
        "e,test,e.nii,",
        "f,test,f.nii",
        "g,test,g,1.nii,s.nii",
        "h/i,test,h.nii,s.nii",
        "j,,j.nii,s.nii",
        "k,test,k\0.nii,s.nii",
    ]
    with pytest.raises(InputError) as caught:
        ManifestReader(write(tmp_path / "cases.csv", *lines)).cases(["t1"])
    assert [problem.split("; ")[0] for problem in caught.value.problems] == [
        "line 3: the cell of subject is empty",
        "line 4: the cell of t1 is empty",
        "line 4: unknown split 'training': it must be one of train, val, test, predict",
        "line 5: subject 'a' is already in line 2",
        "line 6: the cell of label is empty",
        "line 7: 1 cells too few",
        "line 8: 1 cells too many",
        "line 9: subject 'h/i' cannot name files: leave out slashes and a leading dot",
        "line 10: the cell of split is empty",
        "line 11: the cell of t1 holds a NUL byte: save the table as text",
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["subject,t1,label", "a,b,c"], "no column for the modality 'flair': available are ['t1']"),
        (["id;t1", "a;b"], "no column 'subject' among ['id;t1']; separate columns by commas"),
        (["subject,flair,flair", "a,b,c"], "column 'flair' occurs twice"),
        (["subject,flair"], "no line below it"),
        ([""], "is empty"),
    ],
)
def test_manifest_headers(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        ManifestReader(write(tmp_path / "cases.csv", *lines)).cases(["flair"])
    assert words in str(caught.value)


def test_manifest_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_bytes(b"subject,t1\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        ManifestReader(tmp_path / "cases.csv").cases(["t1"])
    with pytest.raises(InputError, match="is not a file"):
        ManifestReader(tmp_path / "absent.csv").cases(["t1"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("FetsReader", {"root": "x"}), ("IsegReader", {"root": "x"}), ("ManifestReader", {"csv": "x.csv", "root": "y"})],
)
def test_readers_are_built_from_yaml(name: str, arguments: dict[str, str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--reader", type=Reader)
    config = parser.parse_object({"reader": {"class_path": f"riskft.data.readers.{name}", "init_args": arguments}})
    assert type(parser.instantiate_classes(config).reader).__name__ == name


def manifests_script() -> ModuleType:
    path = Path(__file__).parents[3] / "experiments" / "manifests.py"
    spec = importlib.util.spec_from_file_location("manifests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_manifests_script_without_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        manifests_script().main([str(tmp_path), str(tmp_path / "out")])
    assert "DATA_ROOT must hold" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.skipif(DATA is None, reason="RISKFT_DATA does not name the folder of the development data")
def test_development_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = manifests_script()
    script.main([str(DATA), str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.csv" for name in sorted(script.MODALITIES)]
    with pytest.raises(SystemExit):
        script.main([str(DATA), str(tmp_path)])
    assert "--overwrite" in capsys.readouterr().err
    before = (tmp_path / "msd_hippocampus.csv").read_text()
    script.main([str(DATA), str(tmp_path), "--overwrite"])
    assert (tmp_path / "msd_hippocampus.csv").read_text() == before
    splits = ReaderSplit().assign(ManifestReader(tmp_path / "brats15_2mm.csv").cases(["flair", "t1ce"]))
    assert [len(splits[name]) for name in SPLITS] == [3, 1, 2, 0]
    report = check(splits, LabelMap({"whole_tumour": [1, 2, 3, 4]}))
    report.raise_if_faulty()
    assert {row.orientation for row in report.rows} == {"LPS"}
    assert all(row.voxels["whole_tumour"] > 1000 for row in report.rows)
