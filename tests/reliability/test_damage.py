"""Files of the cache and the risk store that are damaged or vanish."""

from pathlib import Path

import pytest
import torch
from forked_runs import STEPS_AN_EPOCH, Study, assert_same_weights, before_step, forked

from riskft.data.io.damage import files_named, is_whole
from riskft.data.labels import LabelMap
from riskft.data.prepare.cache import PreparedCache
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.readers import ManifestReader

pytestmark = pytest.mark.slow


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path: Path) -> None:
    path.write_bytes(b"\xff" * 400 + path.read_bytes()[400:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", ["image.nii", "label.nii", "mask.nii", "meta.json"])
@pytest.mark.parametrize("damage", [halve, scramble, empty, Path.unlink])
def test_corrupt_cached_volume(tmp_path, tiny_manifest, file, damage, caplog):
    cases = ManifestReader(str(tiny_manifest)).cases(["t2"])[:2]

    def prepared() -> list[Path]:
        cache = PreparedCache(tmp_path, LabelMap({"shell": [1], "core": [2]}), Preprocessing())
        return [case.folder for case in cache.prepare(cases)]

    first, second = prepared()
    whole = {path.name: path.read_bytes() for path in first.iterdir()}
    untouched = second.stat().st_mtime_ns
    damage(first / file)
    assert prepared() == [first, second]
    assert f"{first}: damaged; the case is preprocessed again" in caplog.text
    assert {path.name: path.read_bytes() for path in first.iterdir()} == whole
    assert second.stat().st_mtime_ns == untouched
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([first.name, second.name])


def test_damaged_digests_are_taken_again(tmp_path, tiny_manifest):
    cases = ManifestReader(str(tiny_manifest)).cases(["t2"])[:1]

    def keys() -> list[str]:
        cache = PreparedCache(tmp_path, LabelMap({"shell": [1], "core": [2]}), Preprocessing())
        return [case.key for case in cache.prepare(cases)]

    before = keys()
    halve(tmp_path / "digests.json")
    assert keys() == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_manifest):
    """A run of three epochs, with its cache and maps, whose source and cache others use."""
    study = Study(tmp_path_factory.mktemp("finished"), tiny_manifest)
    done = forked(study.arguments(), study.root / "log")
    assert done.wait() == 0, done.text
    return study


@pytest.mark.parametrize("damage", [halve, scramble])
def test_corrupt_map(finished, damage):
    """Maps, hardness and what they are made of are made again, and the weights are the same again."""
    folder = finished.root / "cache/risk"
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"}
    victims = [
        *[path for path in files if path.name == "case00_weight.nii"],
        *[path for path in files if path.parent.name == "case01" and path.name == "hardness.nii"],
        *[path for path in files if path.parent.name == "case02" and path.name in ("joint.json", "expected_class.nii")],
        *[path for path in files if path.name == "summary.json"],
    ]
    assert len(victims) == 5
    for path in victims:
        damage(path)
    name = damage.__name__
    done = forked(finished.arguments(name=name), finished.root / f"{name}.log")
    assert done.wait() == 0, done.text
    assert {path: path.read_bytes() for path in files} == files
    assert_same_weights(finished.checkpoint(), finished.checkpoint(name))


@pytest.mark.parametrize(
    ("pattern", "damage", "what"),
    [
        ("cases/*/image.nii", Path.unlink, "no longer there"),
        ("cases/*/label.nii", halve, "truncated or damaged"),
        ("case0*_weight.nii", Path.unlink, "no longer there"),  # the maps
    ],
)
def test_a_file_of_the_cache_vanishes_in_epoch_2(tmp_path, tiny_manifest, finished, pattern, damage, what):
    study = Study(tmp_path, tiny_manifest)
    hook = before_step(STEPS_AN_EPOCH, lambda: [damage(path) for path in study.root.rglob(pattern)])
    # a queue of one subject, which is not loaded before it is needed
    options = ["--data.queue_length", "2"]
    stopped = forked(study.arguments("fit", *options), tmp_path / "stopped", hook)
    assert stopped.wait() == 1, stopped.text
    assert "riskft: case0" in stopped.text
    assert "its preprocessed files changed during the run" in stopped.text
    assert f".nii: {what}" in stopped.text
    assert "Traceback" not in stopped.text
    done = forked(study.arguments("fit", *options, "--ckpt_path", "last"), tmp_path / "done")
    assert done.wait() == 0, done.text
    reference = forked(finished.arguments("fit", *options, name=tmp_path.name), tmp_path / "reference")
    assert reference.wait() == 0
    assert_same_weights(finished.checkpoint(tmp_path.name), study.checkpoint())


def test_the_scans_vanish_in_epoch_2(tmp_path, tiny_manifest, finished):
    """Training goes on from the cache."""
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for path in tiny_manifest.parent.iterdir():
        (cohort / path.name).write_bytes(path.read_bytes())
    study = Study(tmp_path / "study", cohort / "manifest.csv")
    hook = before_step(STEPS_AN_EPOCH, lambda: [path.unlink() for path in cohort.glob("*.nii.gz")])
    done = forked(study.arguments(), tmp_path / "log", hook)
    assert done.wait() == 0, done.text
    assert_same_weights(finished.checkpoint(), study.checkpoint())


def test_other_errors_are_not_taken_for_damage(finished):
    images = list(finished.root.rglob("image.nii"))
    assert all(is_whole(path) for path in images)
    with pytest.raises(ZeroDivisionError), files_named("case00", images):
        torch.zeros(1 // 0)
