"""The viewer's volumes, and which panels are shown."""

import base64
import json

import numpy as np
import pytest
from compare_study import in_ras, write_maps, write_panel, write_run
from tiny_cohort import rotated_affine

from riskft.analysis.comparison import UNITS
from riskft.analysis.runs import find_runs
from riskft.compare.panels import choose_panels
from riskft.compare.volumes import (
    class_names,
    coarser,
    coarser_label,
    mapped_cases,
    mean_hardness,
    viewer_entry,
)
from riskft.errors import InputError

SHAPE = (14, 11, 9)


def decoded(text, shape):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def test_coarser_by_hand():
    volume = np.arange(2 * 3 * 5, dtype=float).reshape(2, 3, 5)
    # blocks of 2 x 1 x 2; the fifth slice fills none
    got = coarser(volume, [2, 1, 2])
    assert got.shape == (1, 3, 2)
    assert got[0, 0, 0] == np.mean([0, 1, 15, 16])
    assert got[0, 2, 1] == np.mean([12, 13, 27, 28])
    label = coarser_label(volume, [2, 1, 2])
    assert label.shape == got.shape
    assert label[0, 2, 1] == volume[1, 2, 3]
    assert (coarser(volume, [1, 1, 1]) == volume).all()
    assert (coarser_label(volume, [1, 1, 1]) == volume).all()
    assert coarser_label(volume, [1, 3, 3]).tolist() == [[[volume[0, 1, 1]]], [[volume[1, 1, 1]]]]


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPI"])
def test_entry_is_in_ras_with_its_spacing_and_ranges(tmp_path, codes):
    affine = rotated_affine((1.2, 1.5, 2.0), codes=codes)
    folder = write_run(tmp_path / "run", scores={("a", "core"): 0.5})
    write_maps(folder, tmp_path / "cache", affine, SHAPE, subjects=("v/1", "t1"))
    cases = mapped_cases(folder)
    assert [(case.subject, case.kind) for case in cases] == [("v/1", "validation"), ("t1", "training")]
    entry = json.loads(json.dumps(viewer_entry(cases[0], "title", class_names(folder))))
    assert entry["classes"] == ["background", "shell", "core"]
    assert entry["shape"] == list(SHAPE)
    assert entry["spacing"] == pytest.approx([1.2, 1.5, 2.0])
    label = np.zeros(SHAPE, np.uint8)
    label[3:7, 4:8, 2:6] = 1
    label[4:6, 5:7, 3:5] = 2
    np.testing.assert_array_equal(decoded(entry["label"], SHAPE), in_ras(label, affine))
    ramp = in_ras(np.arange(label.size, dtype=float).reshape(SHAPE), affine)
    low, high = np.percentile(ramp, [1, 99.5])
    shown = decoded(entry["image"], SHAPE) / 255 * (high - low) + low
    np.testing.assert_allclose(shown, ramp.clip(low, high), atol=(high - low) / 500)
    hardness, weight = entry["maps"]
    assert hardness["low"] == pytest.approx(0.1)
    assert hardness["high"] == pytest.approx(2.0)
    np.testing.assert_array_equal(decoded(hardness["data"], SHAPE) > 0, in_ras(label, affine) > 0)
    assert (weight["low"], weight["high"]) == pytest.approx((1.01, 1.2))


def test_large_volumes_are_made_coarser(tmp_path):
    affine = rotated_affine((0.5, 1.0, 1.0))
    folder = write_run(tmp_path / "run", scores={("a", "core"): 0.5})
    write_maps(folder, tmp_path / "cache", affine, (200, 12, 97))
    entry = viewer_entry(mapped_cases(folder)[0], "title", [])
    assert entry["shape"] == [66, 12, 48]
    assert entry["spacing"] == pytest.approx([1.5, 1.0, 2.0])
    assert decoded(entry["maps"][0]["data"], entry["shape"]).any()


def test_maps_that_are_gone_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run", scores={("a", "core"): 0.5})
    assert mapped_cases(folder) == []
    write_maps(folder, tmp_path / "cache", np.eye(4), SHAPE)
    (tmp_path / "cache/cases/key-v1/label.nii").unlink()
    (case,) = mapped_cases(folder)
    assert case.subject == "t1"
    assert mean_hardness(case) == pytest.approx(3.0)


@pytest.mark.parametrize("keys", [{"v1": True}, {"v1": None}, ["v1"], "v1"])
def test_a_record_of_maps_that_was_tampered_with_is_named(tmp_path, keys):
    folder = write_run(tmp_path / "run", scores={("a", "core"): 0.5})
    write_maps(folder, tmp_path / "cache", np.eye(4), SHAPE)
    manifest = folder / "risk/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "validation data": keys}))
    with pytest.raises(InputError, match=r"manifest.json: 'validation data' is .* expected the key of each case"):
        mapped_cases(folder)


def panels_of(folder, metric="dice"):
    runs = find_runs([folder], metric).runs
    first, second = ([run for run in runs if run.method == name] for name in ("vanilla", "riskft"))
    return choose_panels(second, first, UNITS[metric])


@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_panels_of_tested_cases_are_ranked_by_their_difference(tmp_path, metric):
    base = {(name, "core"): 0.5 for name in "abcde"}
    gains = {"a": 0.1, "b": 0.2, "c": -0.1, "d": 0.4, "e": 0.3}
    other = {(name, "core"): 0.5 + gain for name, gain in gains.items()}
    write_run(tmp_path / "v", scores=base, metric=metric)
    folder = write_run(tmp_path / "r", method="riskft", scores=other, metric=metric)
    # there is a panel of four of the cases, and one of another case
    for name in {"dice": "abcd", "hd95_mm": "acde"}[metric]:
        write_panel(folder, f"test_{name}")
    write_panel(folder, "val_x")
    chosen = panels_of(tmp_path, metric)
    ordered = sorted("abcd" if metric == "dice" else "acde", key=gains.get, reverse=metric == "dice")
    expected = [ordered[0], ordered[2], ordered[-1]]
    assert [panel.path.stem for panel in chosen] == [f"test_{name}" for name in expected]
    assert chosen[0].caption.startswith(f"riskft, best of 4 drawn, test case {ordered[0]}: difference from vanilla")
    assert "worst" in chosen[-1].caption
    for name in "abcde":
        write_panel(folder, f"test_{name}")
    assert panels_of(tmp_path, metric)[0].caption.startswith("riskft, best case, test case")


def test_other_panels_are_ranked_by_hardness_or_said_to_be_unranked(tmp_path):
    write_run(tmp_path / "v", scores={("a", "core"): 0.5})
    folder = write_run(tmp_path / "r", method="riskft", scores={("a", "core"): 0.6})
    assert panels_of(tmp_path) == []
    for name in ("val_t1", "train_v%2F1", "train_z"):
        write_panel(folder, name)
    assert next(panel.caption for panel in panels_of(tmp_path)).endswith(
        "training case v/1 (not ranked: it has neither a score nor a risk map)"
    )
    write_maps(folder, tmp_path / "cache", np.eye(4), SHAPE, subjects=("v/1", "t1"))
    assert [panel.caption for panel in panels_of(tmp_path)] == [
        "riskft, best case, training case v/1: mean hardness of the foreground 2.00 nats",
        "riskft, worst case, validation case t1: mean hardness of the foreground 3.00 nats",
    ]
