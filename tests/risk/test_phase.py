"""Phase 1 on real volumes: what it computes, how often it runs the network, and how it goes on after a kill."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from risk_cases import TinySource, contents, phase_of, prepare, run_ranks, store_of, write_case
from torch import Tensor

from riskft.data.io.volumes import read_volume
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.risk.distribution import ClassDistribution
from riskft.risk.mapping import RiskMapping
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.risk.weighting import (
    ExponentialWeight,
    LinearWeight,
    MinMaxNormalise,
    Normalise,
    PowerWeight,
    QuantileNormalise,
    RankNormalise,
    WindowNormalise,
)

IGNORE = 255


def run(
    root: Path,
    train: list[PreparedCase],
    others: list[PreparedCase] | None = None,
    *,
    network: TinySource | None = None,
    mapping: RiskMapping | None = None,
    source: str = "digest-a",
) -> tuple[RiskSummary, RiskStore, int]:
    """Runs phase 1; returns what it found, its store, and the number of forward passes."""
    network = network or TinySource()
    before = network.calls
    store = store_of(root, train, others or [], mapping, source)
    summary = phase_of(store, network.infer, mapping).run(train, others or [])
    return summary, store, network.calls - before


def weights(store: RiskStore, case: PreparedCase) -> np.ndarray[Any, Any]:
    return np.asarray(read_volume(store.weight_path(case.subject))[0])


def voxels(case: PreparedCase) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """Source probabilities (4, X, Y, Z) and classes (X, Y, Z) of a case."""
    subject = case.to_subject()
    return TinySource().infer(subject["image"].data[None].float())[0], subject["label"].data[0].numpy().astype(int)


# -- what is computed -------------------------------------------------------------------------------------------------


def test_cases_are_not_cubic_and_have_all_classes(risk_prepared: list[PreparedCase]) -> None:
    for case in risk_prepared:
        label = voxels(case)[1]
        assert len(set(label.shape)) == 3
        assert set(np.unique(label)) == {0, 1, 2, IGNORE}
        assert case.to_subject()["image"].spacing == pytest.approx((1.2, 0.9, 2.5))


def test_hardness_is_the_formula(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train = risk_prepared[:3]
    summary, store, _ = run(tmp_path, train)
    joint = np.zeros((3, 4))
    for case in train:
        probs, label = voxels(case)
        for index in range(3):
            joint[index] += probs.double().numpy()[:, label == index].sum(1)
    np.testing.assert_allclose(summary.joint.numpy(), joint, rtol=1e-9)
    conditional = joint / joint.sum(0)
    everything, counted = [], []
    for case in train:
        probs, label = voxels(case)
        expected = np.einsum("yz,zabc->yabc", conditional, probs.double().numpy())
        hard = np.zeros(label.shape)
        for index in np.ndindex(label.shape):
            if label[index] != IGNORE:
                hard[index] = -math.log(expected[(label[index], *index)])
        got, affine = store.read_hardness(case.subject)
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got.numpy(), hard, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(affine, case.to_subject()["label"].affine, atol=1e-5)
        prediction = read_volume(store.expected_class_path(case.subject))[0]
        np.testing.assert_array_equal(prediction, expected.argmax(0))
        everything.append(hard[label != IGNORE])
        counted.append(label[label != IGNORE])
    hard, label = np.concatenate(everything), np.concatenate(counted)
    frequency = np.bincount(label) / len(label)
    entropy = -(frequency * np.log(frequency)).sum()
    assert summary.leep == pytest.approx(-hard.mean(), rel=1e-6)
    assert summary.label_entropy == pytest.approx(entropy, rel=1e-6)
    assert summary.knowledge == pytest.approx(1 - hard.mean() / entropy, rel=1e-4)
    assert 0 < summary.knowledge < 1
    assert summary.class_voxels == np.bincount(label).tolist()
    assert summary.class_hardness == pytest.approx([hard[label == index].mean() for index in range(3)], rel=1e-6)


def test_weights_are_the_mapping_of_the_hardness(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train = risk_prepared[:3]
    mapping = RiskMapping(MinMaxNormalise(), scope="class", weight=LinearWeight(2), balance=False, temper=False)
    summary, store, _ = run(tmp_path, train, mapping=mapping)
    hardness = {case.subject: store.read_hardness(case.subject)[0].numpy() for case in train}
    label = {case.subject: voxels(case)[1] for case in train}
    pooled = [np.concatenate([hardness[s][label[s] == index] for s in hardness]) for index in range(3)]
    maps = {case.subject: weights(store, case) for case in train}
    for subject, got in maps.items():
        assert got.dtype == np.float32
        expected = np.ones_like(got)  # ignored voxels are neutral
        for index, values in enumerate(pooled):
            inside = label[subject] == index
            n = (hardness[subject][inside] - values.min()) / (values.max() - values.min())
            expected[inside] = 1 + 2 * n
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    counted = np.concatenate([maps[s][label[s] != IGNORE] for s in maps])
    assert sum(summary.weight_counts) == len(counted)
    assert summary.weight_counts == np.histogram(counted, summary.weight_edges)[0].tolist()
    for index in range(3):
        mean = np.concatenate([maps[s][label[s] == index] for s in maps]).mean(dtype=np.float64)
        assert summary.class_weight[index] == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("scope", ["class", "dataset", "volume"])
@pytest.mark.parametrize("normalise", [RankNormalise(), RankNormalise(0), QuantileNormalise(0.99), WindowNormalise()])
def test_maps_and_statistics_are_those_of_each_voxel_by_itself(
    tmp_path: Path, risk_prepared: list[PreparedCase], normalise: Normalise, scope: Any
) -> None:
    train = risk_prepared[:3]
    weight = PowerWeight()
    mapping = RiskMapping(normalise, scope=scope, weight=weight)
    summary, store, _ = run(tmp_path, train, mapping=mapping)
    cases = []
    for case in train:
        label = torch.from_numpy(voxels(case)[1])
        cases.append((store.read_hardness(case.subject)[0][label != IGNORE].double(), label[label != IGNORE]))
    everything, counted = [], []
    for case, own in zip(train, cases, strict=True):
        values, classes = own if scope == "volume" else (torch.cat(each) for each in zip(*cases, strict=True))
        scale = ClassDistribution(3)
        scale.update(values, classes)
        if scope != "class":
            scale = scale.pooled()
        # the mean weight is exact to a bin's width, so this takes it from the bins too
        raw = weight(normalise(ClassDistribution.bin_centres()[ClassDistribution.bin_of(values)], classes, scale))
        means = torch.stack([raw[classes == index].mean() for index in range(3)])
        expected = 1 + summary.knowledge * (weight(normalise(*own, scale)) / means[own[1]] - 1)
        got = torch.from_numpy(weights(store, case))[torch.from_numpy(voxels(case)[1]) != IGNORE]
        torch.testing.assert_close(got, expected.float(), rtol=1e-5 if normalise.by_bin else 5e-3, atol=0)
        everything.append(got.double())
        counted.append(own[1])
    maps, classes = torch.cat(everything), torch.cat(counted)
    assert summary.weight_counts == np.histogram(maps, summary.weight_edges)[0].tolist()
    for index in range(3):
        assert summary.class_weight[index] == pytest.approx(float(maps[classes == index].mean()), rel=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_parts_of_the_source_s_output_give_the_maps_of_the_whole(
    tmp_path: Path, risk_prepared: list[PreparedCase], monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    train = risk_prepared[:2]
    whole, expected, _ = run(tmp_path / "whole", train)
    monkeypatch.setattr("riskft.data.io.memory.BLOCK", depth * 9 * 7)
    monkeypatch.setattr("riskft.risk.phase.BLOCK", 50)
    store = store_of(tmp_path / "parts", train)
    summary = phase_of(store, lambda image: TinySource().infer(image)[0].split(depth, 1)).run(train)
    torch.testing.assert_close(summary.joint, whole.joint, rtol=1e-13, atol=0)
    for name in ("leep", "knowledge", "class_hardness", "class_weight"):
        assert getattr(summary, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    for case in train:
        hardness = [each.read_hardness(case.subject)[0] for each in (store, expected)]
        torch.testing.assert_close(*hardness, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(weights(store, case), weights(expected, case), rtol=1e-6)


def test_default_gives_each_class_a_mean_weight_of_one(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    summary, store, _ = run(tmp_path, risk_prepared[:4])
    assert summary.class_weight == pytest.approx([1, 1, 1], abs=0.01)
    assert weights(store, risk_prepared[0]).std() > 0.01


def test_mask_leaves_out_what_lies_beyond_the_head(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    case = risk_prepared[0]
    mask = np.asarray(read_volume(case.folder / "mask.nii")[0]) > 0
    label = voxels(case)[1]
    network, store = TinySource(), store_of(tmp_path, [case])
    summary = phase_of(store, network.infer, use_mask=True).run([case])
    assert 0 < mask.sum() < mask.size
    assert float(summary.joint.sum()) == pytest.approx(int((mask & (label != IGNORE)).sum()), rel=1e-6)
    assert bool((store.read_hardness(case.subject)[0].numpy()[~mask] == 0).all())
    assert bool((weights(store, case)[~mask] == 1).all())


def test_validation_cases_get_maps_but_do_not_enter_the_conditional(
    tmp_path: Path, risk_prepared: list[PreparedCase]
) -> None:
    train, others = risk_prepared[:3], risk_prepared[3:5]
    alone, own, _ = run(tmp_path / "alone", train)
    both, store, calls = run(tmp_path / "both", train, others)
    assert calls == 5
    assert both.to_json() == alone.to_json()
    for case in train:
        assert store.hardness_path(case.subject).read_bytes() == own.hardness_path(case.subject).read_bytes()
        assert store.weight_path(case.subject).read_bytes() == own.weight_path(case.subject).read_bytes()
    for case in others:
        assert weights(store, case).shape == voxels(case)[1].shape
        assert store.has_hardness(case.subject)


def test_order_of_the_cases_does_not_matter(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    one, first, _ = run(tmp_path / "one", risk_prepared, network=TinySource(sharpness=20))
    two, second, _ = run(tmp_path / "two", risk_prepared[::-1], network=TinySource(sharpness=20))
    assert one.to_json() == two.to_json()
    assert contents(first.folder, "*.nii") == contents(second.folder, "*.nii")


def test_case_without_foreground(tmp_path: Path) -> None:
    case = write_case(tmp_path / "raw", "s1", 0)
    assert case.label is not None
    image = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), case.label)
    train = prepare(tmp_path / "cache", [case])
    summary, store, _ = run(tmp_path / "risk", train)
    assert summary.leep == pytest.approx(0, abs=1e-6)
    assert summary.knowledge == 0
    assert summary.class_voxels[1:] == [0, 0]
    assert summary.class_weight[1:] == [0, 0]
    assert bool((weights(store, train[0]) == 1).all())


def test_case_that_is_ignored_as_a_whole(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    case = write_case(tmp_path / "raw", "blank", 0)
    assert case.label is not None
    image = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.full(image.shape, 9, np.uint8), image.affine), case.label)
    blank = prepare(tmp_path / "cache", [case])
    summary, store, _ = run(tmp_path / "risk", [risk_prepared[0], *blank])
    alone, _, _ = run(tmp_path / "alone", risk_prepared[:1])
    assert summary.to_json() == alone.to_json()
    assert bool((weights(store, blank[0]) == 1).all())
    with pytest.raises(ValueError, match="no voxel has been counted"):
        run(tmp_path / "nothing", blank)


# -- how often, and what is kept --------------------------------------------------------------------------------------


def test_one_forward_pass_a_volume_and_none_the_second_time(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    first, store, calls = run(tmp_path, risk_prepared[:4], risk_prepared[4:])
    assert calls == 6
    files = contents(tmp_path)
    assert not [name for name in files if ".tmp-" in name or name.endswith("probabilities.npy")]
    second, _, calls = run(tmp_path, risk_prepared[:4], risk_prepared[4:])
    assert calls == 0
    assert second.to_json() == first.to_json()
    assert contents(tmp_path) == files
    assert store.changes() == []


def test_summary_survives_json(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    summary, _, _ = run(tmp_path, risk_prepared[:2])
    values = json.loads(json.dumps({**summary.to_json(), "something else": 1}))
    restored = RiskSummary.from_json(values)
    assert torch.equal(restored.joint, summary.joint)
    assert restored.joint.dtype == torch.float64
    assert restored.to_json() == summary.to_json()


@pytest.mark.parametrize(
    "mapping",
    [
        RiskMapping(scope="volume"),
        RiskMapping(measure="relative_to_prior", normalise=MinMaxNormalise()),
        RiskMapping(weight=ExponentialWeight()),
        RiskMapping(balance=False, temper=False),
    ],
)
def test_other_options_make_new_weights_without_a_forward_pass(
    tmp_path: Path, risk_prepared: list[PreparedCase], mapping: RiskMapping
) -> None:
    train = risk_prepared[:3]
    _, before, _ = run(tmp_path, train)
    kept = contents(before.folder, "hardness.nii")
    maps = contents(before.weights_folder)
    _, after, calls = run(tmp_path, train, mapping=mapping)
    assert calls == 0
    assert after.folder == before.folder
    assert after.weights_folder != before.weights_folder
    assert contents(before.folder, "hardness.nii") == kept
    assert contents(before.weights_folder) == maps
    assert any(bool((weights(before, case) != weights(after, case)).any()) for case in train)
    assert run(tmp_path, train)[2] == 0


def test_other_source_makes_new_maps(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train = risk_prepared[:2]
    _, before, _ = run(tmp_path, train)
    changed = store_of(tmp_path, train, source="digest-b")
    assert changed.changes() == ["source"]
    _, after, calls = run(tmp_path, train, network=TinySource(seed=1), source="digest-b")
    assert calls == 2
    assert after.folder != before.folder
    assert not torch.equal(after.read_hardness(train[0].subject)[0], before.read_hardness(train[0].subject)[0])


def test_changed_data_makes_new_maps(tmp_path: Path) -> None:
    cases = [write_case(tmp_path / "raw", f"s{index}", index) for index in range(2)]
    _, before, _ = run(tmp_path / "risk", prepare(tmp_path / "cache", cases))
    cases[1] = write_case(tmp_path / "raw", "s1", seed=99)
    again = prepare(tmp_path / "cache", cases)
    assert store_of(tmp_path / "risk", again).changes() == ["training data"]
    _, after, calls = run(tmp_path / "risk", again)
    assert calls == 2
    assert after.folder != before.folder


def test_changed_preprocessing_makes_new_maps(tmp_path: Path) -> None:
    cases = [write_case(tmp_path / "raw", "s0", 0)]
    run(tmp_path / "risk", prepare(tmp_path / "cache", cases))
    again = prepare(tmp_path / "cache", cases, margin=0)
    assert store_of(tmp_path / "risk", again).changes() == ["training data"]


# -- kills and faults -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a signal would be."""


def dying(network: TinySource, survives: int) -> Callable[[Tensor], Tensor]:
    def infer(image: Tensor) -> Tensor:
        if network.calls == survives:
            raise Killed
        return network.infer(image)

    return infer


@pytest.mark.parametrize("survives", [0, 1, 3])
def test_killed_phase_goes_on_at_the_next_subject(
    tmp_path: Path, risk_prepared: list[PreparedCase], survives: int
) -> None:
    train = risk_prepared[:4]
    network = TinySource()
    with pytest.raises(Killed):
        phase_of(store_of(tmp_path / "killed", train), dying(network, survives)).run(train)
    assert not list((tmp_path / "killed").rglob(".tmp-*"))
    seen: list[float] = []

    def infer(image: Tensor) -> Tensor:
        seen.append(float(image.sum()))
        return network.infer(image)

    store = store_of(tmp_path / "killed", train)
    summary = phase_of(store, infer).run(train)
    expected = [float(case.to_subject()["image"].data.sum()) for case in train[survives:]]
    assert seen == pytest.approx(expected)
    whole, other, _ = run(tmp_path / "whole", train)
    assert summary.to_json() == whole.to_json()
    assert contents(store.folder) == contents(other.folder)


@pytest.mark.parametrize(
    "victim", ["hardness.nii", "expected_class.nii", "joint.json", "summary.json", "s1_weight.nii"]
)
def test_kill_while_a_file_is_written(
    tmp_path: Path, risk_prepared: list[PreparedCase], monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    train = risk_prepared[:3]
    network = TinySource()
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == victim:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("riskft.files.os.replace", killed)
        with pytest.raises(Killed):
            phase_of(store_of(tmp_path / "killed", train), network.infer).run(train)
    before = network.calls
    store = store_of(tmp_path / "killed", train)
    phase_of(store, network.infer).run(train)
    # only a forward pass whose joint was lost is done again
    assert network.calls - before == (3 if victim == "joint.json" else 0)
    other = run(tmp_path / "whole", train)[1]
    assert contents(store.folder) == contents(other.folder)


def test_truncated_weights_are_made_again(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train = risk_prepared[:3]
    _, store, _ = run(tmp_path, train)
    path = store.weight_path(train[1].subject)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _, _, calls = run(tmp_path, train)
    assert calls == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_source_that_gives_nan_is_named_with_its_case(
    tmp_path: Path, risk_prepared: list[PreparedCase], bad: float
) -> None:
    train = risk_prepared[:2]
    network = TinySource()

    def infer(image: Tensor) -> Tensor:
        probs = network.infer(image)
        if network.calls == 2:
            probs[0, 1, 2, 3, 1] = bad
        return probs

    with pytest.raises(InputError, match=rf"NaN or infinite values[\s\S]*{train[1].subject}: "):
        phase_of(store_of(tmp_path, train), infer).run(train)
    assert not store_of(tmp_path, train).has_forward(train[1].subject)


@pytest.mark.parametrize("lost", [slice(0, -1), slice(2, None)])
def test_source_that_gives_too_few_planes(tmp_path: Path, risk_prepared: list[PreparedCase], lost: slice) -> None:
    train = risk_prepared[:1]
    store = store_of(tmp_path, train)
    with pytest.raises(ValueError, match="planes along x, but got"):
        phase_of(store, lambda image: TinySource().infer(image)[0][:, lost].split(3, 1)).run(train)
    assert not list(store.folder.rglob("*.npy"))


# -- processes, here as threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 8])
def test_number_of_ranks_does_not_matter(tmp_path: Path, risk_prepared: list[PreparedCase], size: int) -> None:
    train, others = risk_prepared[:4], risk_prepared[4:]
    one, alone, _ = run(tmp_path / "alone", train, others, network=TinySource(sharpness=20))
    network = TinySource(sharpness=20)
    store = store_of(tmp_path / "shared", train, others)
    results = run_ranks(
        size,
        lambda rank, gather: phase_of(store, network.infer, rank=rank, world_size=size, gather=gather).run(
            train, others
        ),
    )
    assert network.calls == 6  # also where there are more ranks than cases
    assert [result.to_json() for result in results] == [one.to_json()] * size
    assert contents(store.folder) == contents(alone.folder)


def test_rank_that_sees_an_old_summary_does_not_leave_the_others(
    tmp_path: Path, risk_prepared: list[PreparedCase]
) -> None:
    train = risk_prepared[:3]
    one, _, _ = run(tmp_path, train)
    network = TinySource()

    class Stale(RiskStore):
        def read_summary(self, subjects: Any) -> dict[str, Any] | None:
            return None

    fresh = store_of(tmp_path, train)
    stale = Stale(tmp_path, {k: v for k, v in fresh.inputs.items() if k != "version"}, fresh.options)
    results = run_ranks(
        2,
        lambda rank, gather: phase_of(
            stale if rank else fresh, network.infer, rank=rank, world_size=2, gather=gather
        ).run(train),
    )
    assert [result.to_json() for result in results] == [one.to_json()] * 2
    assert network.calls == 0


def test_another_run_with_the_same_store_may_be_faster(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    """It finishes everything between this run's forward passes and its reading of their probabilities."""
    network = TinySource()
    store = store_of(tmp_path, risk_prepared, [], None, "digest-a")
    fast = phase_of(store, network.infer)
    slow = phase_of(store, network.infer)
    forward = slow.source.run

    def overtaken(cases: list[PreparedCase]) -> None:
        forward(cases)
        fast.run(risk_prepared)

    slow.source.run = overtaken  # type: ignore[method-assign,assignment]
    assert slow.run(risk_prepared).leep == fast.run(risk_prepared).leep
    assert not list(store.folder.rglob("probabilities.npy"))
    # and the other way round: written again after the other's hardness, they are not kept for ever
    case = risk_prepared[0]
    store.write_probabilities(case.subject, [torch.zeros(1, 2, 1, 1)], 1)
    store.write_joint(case.subject, store.read_joint(case.subject))
    assert not list(store.folder.rglob("probabilities.npy"))
