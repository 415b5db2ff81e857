"""The store: what makes a new folder, what counts as finished, and file names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from riskft.errors import InputError
from riskft.risk.store import RiskStore

INPUTS = {"source": "a", "data": {"s1": "k1", "s2": "k2"}, "classes": ["background", "rim"]}
OPTIONS = {"scope": "class"}


def store(root: Path, options: dict[str, object] | None = None, **changes: object) -> RiskStore:
    return RiskStore(root, {**INPUTS, **changes}, OPTIONS if options is None else options)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"source": "b"}, ["source"]),
        ({"data": {"s1": "k1", "s2": "other"}}, ["data"]),
        ({"data": {"s1": "k1"}, "classes": ["background", "core"]}, ["classes", "data"]),
        ({"mask": True}, ["mask"]),
    ],
)
def test_changed_input_makes_a_new_folder_and_is_named(
    tmp_path: Path, changes: dict[str, object], expected: list[str]
) -> None:
    before = store(tmp_path)
    assert before.changes() == []  # none came before
    before.write_manifests()
    after = store(tmp_path, **changes)
    assert after.folder != before.folder
    assert after.changes() == expected
    after.write_manifests()
    assert after.changes() == []
    assert before.changes() == []  # going back finds the earlier one


def test_input_that_has_gone_is_named(tmp_path: Path) -> None:
    store(tmp_path, mask=True).write_manifests()
    assert store(tmp_path).changes() == ["mask"]


def test_changes_against_the_manifest_of_a_run(tmp_path: Path) -> None:
    store(tmp_path / "store", source="b").write_manifests()  # of some other run
    manifest = tmp_path / "run" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps(store(tmp_path, classes=["x"]).inputs))
    assert store(tmp_path / "store").changes(manifest) == ["classes"]
    assert store(tmp_path / "store").changes(tmp_path / "none.json") == ["source"]


def test_tuples_in_inputs_are_no_change(tmp_path: Path) -> None:
    store(tmp_path, classes=("background", "rim"), source="b").write_manifests()
    assert store(tmp_path, classes=("background", "rim")).changes() == ["source"]


def test_changed_options_share_the_hardness(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path, {"scope": "volume"})
    assert one.folder == two.folder
    assert one.hardness_path("s1") == two.hardness_path("s1")
    assert one.weight_path("s1") != two.weight_path("s1")


@pytest.mark.parametrize("subject", ["BraTS20_001", "a/b", "..\\x", "p:1*?", "größe", "sub 1 (a)"])
def test_any_subject_is_a_file_name_of_its_own(tmp_path: Path, subject: str) -> None:
    own = store(tmp_path)
    own.write_weights(subject, torch.ones(2, 3, 4), np.eye(4))
    assert own.weight_path(subject).parent == own.weights_folder
    assert [path.name for path in own.weights_folder.iterdir()] == [own.weight_path(subject).name]
    assert not set(own.weight_path(subject).name) & set('/\\:*?"<>|')
    own.write_probabilities(subject, [torch.ones(3, 2, 4, 5)], 3)
    assert not own.has_forward(subject)
    own.write_joint(subject, torch.ones(2, 2))
    assert own.has_forward(subject)


def test_hardness_replaces_the_probabilities(tmp_path: Path) -> None:
    own = store(tmp_path)
    probabilities = torch.rand(4, 3, 2, 5)  # four planes
    joint = torch.rand(3, 4, dtype=torch.float64) / 3
    assert not own.has_forward("s1")
    own.write_probabilities(
        "s1", [probabilities[:3].transpose(2, 3).contiguous().transpose(2, 3), probabilities[3:]], 4
    )
    own.write_joint("s1", joint)
    assert own.has_forward("s1")
    assert not own.has_hardness("s1")
    assert torch.equal(own.read_joint("s1"), joint)  # to the last bit, through JSON
    assert torch.equal(torch.cat(list(own.read_probabilities("s1"))), probabilities)
    hardness = torch.rand(3, 2, 5) * 27
    geometry = np.diag([1.5, 2.0, 3.0, 1.0])
    own.write_hardness("s1", hardness, torch.randint(0, 3, (3, 2, 5), dtype=torch.uint8), geometry)
    assert own.has_forward("s1")
    assert own.has_hardness("s1")
    assert sorted(path.name for path in own.hardness_path("s1").parent.iterdir()) == [
        "expected_class.nii",
        "hardness.nii",
        "joint.json",
    ]
    got, read = own.read_hardness("s1")
    assert torch.equal(got, hardness)
    np.testing.assert_array_equal(read, geometry)


def test_summary_holds_only_while_all_maps_are_whole(tmp_path: Path) -> None:
    own = store(tmp_path)
    assert own.read_summary([]) is None
    for subject in ("s1", "s2"):
        own.write_weights(subject, torch.ones(4, 5, 6), np.eye(4))
        own.write_hardness(subject, torch.ones(4, 5, 6), torch.zeros(4, 5, 6), np.eye(4))
    own.write_summary({"leep": -0.25}, ["s1", "s2"])
    summary = own.read_summary(["s1", "s2"])
    assert summary is not None
    assert summary["leep"] == -0.25
    assert own.read_summary(["s1"]) is not None
    assert own.read_summary(["s1", "s3"]) is None
    path = own.weight_path("s2")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert own.read_summary(["s1", "s2"]) is None
    path.unlink()
    assert own.read_summary(["s1", "s2"]) is None
    path.write_bytes(whole)
    assert own.read_summary(["s1", "s2"]) is not None


def test_folder_that_is_not_shared_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"s1.*joint\.json: missing after phase 1\. All processes must see the same"):
        store(tmp_path).read_joint("s1")
