"""People with several scans: found by every reader, kept in one split, and reported where a split tears them apart."""

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import image, save
from rich.console import Console

from riskft import (
    Brats2023Reader,
    Case,
    FetsReader,
    FractionSplit,
    LabelMap,
    ListSplit,
    ManifestReader,
    MsdReader,
    NnunetReader,
    Reader,
    RiskDataModule,
)
from riskft.commands.data import main
from riskft.data.check.data_set import FaultKind, WarningKind, check
from riskft.data.readers.naming import People
from riskft.data.splits import few_shot
from riskft.errors import InputError

LABELS = LabelMap({"x": [1]})


@pytest.mark.parametrize(
    ("subject", "person"),
    [
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005"),
        ("BraTS-MET-00002-000", "BraTS-MET-00002"),
        ("BraTS-MEN-RT-0000-1", "BraTS-MEN-RT-0000"),
        ("BraTS-GoAT-00000", None),
        ("BraTS-2024-00001", None),
        ("BraTS19_CBICA_AAB_1", "BraTS19_CBICA_AAB"),
        ("Brats18_TCIA01_147_1", "Brats18_TCIA01_147"),
        ("BraTS19_2013_10_1", "BraTS19_2013_10"),
        ("brats_tcia_pat153_181", "brats_tcia_pat153"),
        ("BraTS20_Training_001", None),
        ("BraTS_2020_Training_001", None),
        ("BraTS2021_00001", None),
        ("FeTS21_Training_001", None),
        ("FeTS2022_01341", None),
        ("sub-01_ses-2", "sub-01"),
        ("sub-01_ses-02_run-1", "sub-01"),
        ("sub-A7_ses-pre_acq-highres", "sub-A7"),
        ("sub-01_run-2", "sub-01"),
        ("P01_ses-1", "P01"),
        ("BraTS24-GLI-00005-100", "BraTS24-GLI-00005"),
        ("BraTS-PED-00030-000", "BraTS-PED-00030"),
        ("sub-01", None),
        ("hippocampus_001", None),
    ],
)
def test_what_known_identifiers_say(subject: str, person: str | None) -> None:
    assert People().of(subject) == person


@pytest.mark.parametrize(
    ("pattern", "subject", "person"),
    [
        (r"^(patient\d+)", "patient07_visit2", "patient07"),
        (r"^patient\d+", "patient07_visit2", "patient07"),
        (r"^(?:patient|control)(\d+)_", "control07_2", "07"),
        (r"^(patient\d+)|.+", "phantom", "phantom"),
        (r"^x", "patient07", None),
        (r"^(x?)", "patient07", None),
    ],
)
def test_what_a_pattern_finds(pattern: str, subject: str, person: str | None) -> None:
    assert People(pattern).of(subject) == person


def test_invalid_patterns() -> None:
    with pytest.raises(InputError, match=r"person is '\(sub', which is not a regular expression"):
        NnunetReader("anywhere", person="(sub")
    cases = [Case("p1_a", {}), Case("p1_b", {}), Case("q2", {})]
    with pytest.raises(InputError, match=r"'\^\(p\\d\)', which finds no person in 1 of 3 subjects: q2\."):
        People(r"^(p\d)").find(cases)
    assert [case.person for case in People(r"^(p\d)|.+").find(cases)] == ["p1", "p1", "q2"]


def test_one_spelling_of_a_person() -> None:
    found = People(r"^(p\d)_|.+").find([Case("p1_a", {}), Case("P1", {}), Case("P2", {})])
    assert [case.owner for case in found] == ["P1", "P1", "P2"]
    nobody = [Case("p1", {}), Case("P1", {})]
    assert People().find(nobody) == nobody


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


NAMES = [f"BraTS-GLI-{who:05d}-{100 + when}" for who in range(5) for when in range(1 + who % 3)]


def folders(root: Path, names: list[str], separator: str, modality: str) -> None:
    for name in names:
        touch(root / name / f"{name}{separator}{modality}.nii.gz")
        touch(root / name / f"{name}{separator}seg.nii.gz")


def brats(root: Path, names: list[str], **options: Any) -> Reader:
    folders(root, names, "-", "t1n")
    return Brats2023Reader(root, **options)


def fets(root: Path, names: list[str], **options: Any) -> Reader:
    folders(root, names, "_", "t1")
    return FetsReader(root, **options)


def msd(root: Path, names: list[str], **options: Any) -> Reader:
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    content = {"modality": {"0": "t1"}, "labels": {"0": "background", "1": "x"}, "training": pairs}
    touch(root / "dataset.json").write_text(json.dumps(content))
    return MsdReader(root, **options)


def nnunet(root: Path, names: list[str], **options: Any) -> Reader:
    content = {"channel_names": {"0": "t1"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
    touch(root / "dataset.json").write_text(json.dumps(content))
    for name in names:
        touch(root / "imagesTr" / f"{name}_0000.nii.gz")
        touch(root / "labelsTr" / f"{name}.nii.gz")
    return NnunetReader(root, **options)


def manifest(root: Path, names: list[str], **options: Any) -> Reader:
    rows = ["subject,t1,label", *(f"{name},{name}.nii,{name}_seg.nii" for name in names)]
    touch(root / "cases.csv").write_text("\n".join(rows))
    return ManifestReader(root / "cases.csv", **options)


@pytest.mark.parametrize("layout", [brats, fets, msd, nnunet, manifest])
def test_every_reader_keeps_the_time_points_of_a_patient_together(tmp_path: Path, layout: Any) -> None:
    cases = layout(tmp_path, NAMES).cases(["t1"])
    assert [case.person for case in cases] == [name[:15] for name in NAMES]
    for seed in range(5):
        splits = FractionSplit(val=0.2, test=0.2, seed=seed).assign(cases)
        where = defaultdict(set)
        for split, found in splits.items():
            for case in found:
                where[case.owner].add(split)
        assert sorted(map(len, where.values())) == [1] * 5
        train = {case.owner for case in splits["train"]}
        assert len(train) == 3
        # a limit is of people, with all of their scans
        few = few_shot(splits["train"], 2)
        assert len({case.owner for case in few}) == 2
        assert len(few) == sum(1 + int(owner[-1]) % 3 for owner in {case.owner for case in few})
        with pytest.raises(InputError, match=r"train_limit is 4, expected 1 to 3, the people with training cases"):
            few_shot(splits["train"], 4)


@pytest.mark.parametrize("layout", [brats, fets, msd, nnunet])
def test_readers_take_a_pattern(tmp_path: Path, layout: Any) -> None:
    cases = layout(tmp_path, ["anna_1", "anna_2", "bert_1"], person="^[a-z]+").cases(["t1"])
    assert [case.person for case in cases] == ["anna", "anna", "bert"]


def test_a_manifest_s_column_of_people(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    rows = ["scan1,anna,1.nii", "scan2,,2.nii", "scan3, Anna ,3.nii", "BraTS-GLI-00005-100,,4.nii"]
    path.write_text("\n".join(["subject,person,t1", *rows]))
    owners = {case.subject: case.owner for case in ManifestReader(path).cases(["t1"])}
    # the table knows better than names
    assert owners == {"scan1": "Anna", "scan2": "scan2", "scan3": "Anna", "BraTS-GLI-00005-100": "BraTS-GLI-00005-100"}
    path.write_text("subject,person,t1\nscan1,anna,1.nii\nanna,,2.nii\n")
    assert {case.owner for case in ManifestReader(path).cases(["t1"])} == {"anna"}
    with pytest.raises(InputError, match="no column for the modality 'person'"):
        ManifestReader(path).cases(["person"])


def test_an_unlabelled_test_scan_does_not_move_its_person_s_other_scans() -> None:
    labelled = [Case(f"s{k}", {}, Path("seg.nii"), person=f"p{k}") for k in range(10)]
    unlabelled = [Case(f"t{k}", {}, None, "test", person=f"p{k}") for k in range(10)]
    splits = FractionSplit(val=0.2, test=0.3, seed=1).assign([*labelled, *unlabelled])
    alone = FractionSplit(val=0.2, test=0.3, seed=1).assign(labelled)
    assert splits["predict"] == unlabelled
    assert [splits[name] for name in ("train", "val", "test")] == [alone[name] for name in ("train", "val", "test")]
    # one with a label takes its person's other scans along, whatever split they state
    held = Case("held", {}, Path("seg.nii"), "test", person="p4")
    assert FractionSplit(val=0.2, test=0, seed=1).assign([*labelled, held])["test"] == [labelled[4], held]


def on_disk(root: Path, subject: str, person: str | None, label: bool = True) -> Case:
    seed = sum(map(ord, subject))
    truth = (np.indices((6, 8, 5)).sum(0) < 6).astype(np.uint8)
    images = {"t1": save(root / f"{subject}.nii", image(seed))}
    return Case(subject, images, save(root / f"{subject}_seg.nii", truth) if label else None, person=person)


@pytest.mark.parametrize("voxels", [True, False])
def test_a_person_in_two_splits_is_a_fault(tmp_path: Path, voxels: bool) -> None:
    cases = [on_disk(tmp_path, f"anna_{k}", "anna") for k in range(4)]
    own = on_disk(tmp_path, "bert", None)
    torn = check({"train": cases[:2], "val": [cases[2]], "test": [cases[3], own]}, LABELS, voxels=voxels)
    (fault,) = torn.faults
    assert fault.kind is FaultKind.PERSON_LEAKAGE
    assert "anna has scans in train and val and test (train: anna_0, anna_1; val: anna_2; test: anna_3)" in str(fault)
    fine = {"train": cases, "test": [own], "predict": [on_disk(tmp_path, "anna_9", "anna", label=False)]}
    assert not check(fine, LABELS, voxels=voxels).faults
    # who is a person by name alone can be torn from another's scans too
    named = on_disk(tmp_path, "anna", None)
    assert len(check({"train": cases[:2], "test": [named]}, LABELS, voxels=voxels).faults) == 1


def test_the_report_shows_people_where_they_are_not_the_subjects(tmp_path: Path) -> None:
    def printed(splits: dict[str, list[Case]]) -> str:
        stream = io.StringIO()
        check(splits, LABELS, voxels=False).render(Console(file=stream, width=200))
        return stream.getvalue()

    cases = [on_disk(tmp_path, f"anna_{k}", "anna") for k in range(2)]
    bert = on_disk(tmp_path, "bert", None)
    text = printed({"train": cases, "test": [bert]})
    assert "3 cases of 2 people (2 train of 1 person, 1 test of 1 person); 0 faults" in text
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in text.splitlines() if "│" in line]
    assert rows == [["anna_0", "train", "anna"], ["anna_1", "train", "anna"], ["bert", "test", "bert"]]
    alone = printed({"test": [bert]})
    assert "person" not in alone
    assert "1 case (1 test); 0 faults" in alone


def test_data_check_refuses_lists_and_folds_that_split_a_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """nnU-Net's own folds, whose names do not tell people apart."""
    names = ["visit-a_p1", "visit-b_p1", "visit-a_p2", "visit-a_p3"]
    reader = nnunet(tmp_path, names)
    for name in names:
        truth = (np.indices((6, 8, 5)).sum(0) < 6).astype(np.uint8)
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", truth)
        save(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image(names.index(name)))
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": names[:1] + names[2:3], "val": names[1:2]}]))
    options = [
        *("check", "--data.reader", "riskft.NnunetReader", "--data.reader.init_args.root", str(tmp_path)),
        *("--data.modalities", "[t1]", "--data.split", "riskft.ReaderSplit", "--data.reader.init_args.fold", "0"),
    ]
    main(options)  # nobody knows whose they are
    assert "0 faults" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main([*options, "--data.reader.init_args.person", r"p\d+$"])
    assert caught.value.code == 1
    assert "p1 has scans in train and val (train: visit-a_p1; val: visit-b_p1)" in capsys.readouterr().out
    people = NnunetReader(tmp_path, person=r"p\d+$").cases(["t1"])
    lists = ListSplit(["visit-a_*"], test=["visit-b_*"])
    (fault,) = check(lists.assign(people), LABELS, voxels=False).faults
    assert fault.kind is FaultKind.PERSON_LEAKAGE
    # fit looks before it prepares anything
    asked = RiskDataModule(
        NnunetReader(tmp_path, person=r"p\d+$"), ["t1"], split=lists, cache_dir=str(tmp_path / "cache")
    )
    with pytest.raises(InputError, match="p1 has scans in train and test"):
        asked.prepare_data()
    assert not (tmp_path / "cache/cases").exists()
    assert reader.cases(["t1"])[0].owner == "visit-a_p1"


@pytest.mark.parametrize(
    ("one", "other", "warned"),
    [
        ("patient01_t0", "patient01_t1", True),
        ("P7_TP1", "p7_tp2", True),
        ("100001_time1", "100001_time2", True),
        ("anna-baseline", "anna-followup2", True),
        ("patient01_t0", "patient02_t0", False),
        ("hippocampus_001", "hippocampus_002", False),
        ("sub-01_t1", "sub-02_t2", False),
    ],
)
def test_names_that_look_like_visits_of_one_person_are_warned_of(one: str, other: str, warned: bool) -> None:
    def found(split: str) -> list[str]:
        cases = {"train": [Case(one, {}, Path("a"))], split: [Case(other, {}, Path("b"))]}
        report = check(cases, LABELS, voxels=False)
        return [str(warning) for warning in report.warnings if warning.kind is WarningKind.VISITS]

    assert [f"{one} (train), {other} (test) may be visits of one person" in line for line in found("test")] == (
        [True] if warned else []
    )
    assert not found("predict")
