"""The EEP in the risk store: what is kept, when the source network must run for it, and how it moves with the patch."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torchio as tio
from risk_cases import NAMES, TinySource, contents, phase_of, store_of
from torch import multiprocessing

from riskft.data.io.volumes import read_channels, write_channels
from riskft.data.patches.augment import EEP, training_transform
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.prepare.cache import PreparedCase
from riskft.distributed import gather_objects
from riskft.risk.leep import conditional_from_joint
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary


def run(
    root: Path, train: list[PreparedCase], others: list[PreparedCase] | None = None, keep: bool = True, **options: Any
) -> tuple[RiskSummary, RiskStore, int]:
    network = TinySource()
    store = store_of(root, train, others or [])
    summary = phase_of(store, network.infer, keep_eep=keep, **options).run(train, others or [])
    return summary, store, network.calls


def test_it_is_what_the_source_expects(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    train, others = risk_prepared[:3], risk_prepared[3:4]
    summary, store, calls = run(tmp_path, train, others)
    assert calls == 4
    conditional = conditional_from_joint(summary.joint).numpy()
    for case in train:
        subject = case.to_subject()
        probabilities = TinySource().infer(subject["image"].data[None].float())[0].double().numpy()
        expected = np.einsum("yz,zabc->yabc", conditional, probabilities)
        assert np.load(store.eep_path(case.subject))["channels"].dtype == np.float16
        got, affine = read_channels(store.eep_path(case.subject))
        assert got.dtype == torch.float32
        np.testing.assert_allclose(got, expected, atol=1e-3)
        np.testing.assert_array_equal(affine, subject["label"].affine)
        # and so -log of it at the label is the hardness
        label = subject["label"].data[0].long()
        found = -got.gather(0, label.clamp_max(2)[None])[0].log()
        hardness = store.read_hardness(case.subject)[0]
        np.testing.assert_allclose(found[label < 3], hardness[label < 3], rtol=2e-2, atol=1e-3)
    assert not store.has_eep(others[0].subject)


def test_a_store_without_it_is_completed_and_otherwise_unchanged(
    tmp_path: Path, risk_prepared: list[PreparedCase]
) -> None:
    train, others = risk_prepared[:3], risk_prepared[3:4]
    before, store, calls = run(tmp_path / "late", train, others, keep=False)
    assert calls == 4
    assert not list(store.folder.rglob("eep.npz"))
    kept = contents(tmp_path / "late")
    after, same, calls = run(tmp_path / "late", train, others)
    assert same.folder == store.folder  # not of another fingerprint
    assert calls == 3  # training cases alone
    assert after.to_json() == before.to_json()
    files = contents(tmp_path / "late")
    assert {name: data for name, data in files.items() if not name.endswith(".npz")} == kept
    assert len(files) == len(kept) + 3
    assert run(tmp_path / "late", train, others)[2] == 0
    assert run(tmp_path / "late", train, others, keep=False)[2] == 0
    early = run(tmp_path / "early", train, others)[1]
    for case in train:
        one, two = (read_channels(item.eep_path(case.subject))[0] for item in (early, store))
        assert torch.equal(one, two)
    early.eep_path(train[1].subject).unlink()
    assert run(tmp_path / "early", train, others)[2] == 1


def test_other_options_of_the_map_need_no_source_network(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    _, store, _ = run(tmp_path, risk_prepared[:2])
    (store.weights_folder / "summary.json").unlink()
    assert run(tmp_path, risk_prepared[:2])[2] == 0


def test_channels_survive_the_file(tmp_path: Path) -> None:
    volume = torch.rand(3, 4, 5, 6)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = 1 / 3
    write_channels(tmp_path / "a b.npz", volume, affine)
    got, read = read_channels(tmp_path / "a b.npz")
    assert torch.equal(got, volume.half().float())
    np.testing.assert_array_equal(read, affine)
    assert [path.name for path in tmp_path.iterdir()] == ["a b.npz"]


def work(rank: int, folder: Path, prepared: list[PreparedCase]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    for _ in range(2):  # the second time all is there
        run(folder / "store", prepared, rank=rank, world_size=2, gather=gather_objects)
    run(folder / "late", prepared, keep=False, rank=rank, world_size=2, gather=gather_objects)
    calls = run(folder / "late", prepared, rank=rank, world_size=2, gather=gather_objects)[2]
    (folder / f"{rank}.txt").write_text(str(calls))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, risk_prepared: list[PreparedCase]) -> None:
    multiprocessing.start_processes(work, (tmp_path, risk_prepared[:3]), nprocs=2, start_method="fork")
    run(tmp_path / "one", risk_prepared[:3])
    files = contents(tmp_path / "one")
    assert len([name for name in files if name.endswith("eep.npz")]) == 3
    assert contents(tmp_path / "store") == files
    assert contents(tmp_path / "late") == files
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["2", "1"]


# -- with the patch ---------------------------------------------------------------------------------------------------


@pytest.fixture
def subject(tmp_path: Path, risk_prepared: list[PreparedCase]) -> tio.Subject:
    """A case whose image's channels are its EEP, so that both must move alike."""
    train = risk_prepared[:1]
    _, store, _ = run(tmp_path, train)
    case = train[0]
    weights = {case.subject: store.weight_path(case.subject)}
    maps = TrainingMaps(weights, {case.subject: store.eep_path(case.subject)})
    (loaded,) = maps.subjects(train)
    loaded = pickle.loads(pickle.dumps(loaded))  # to a worker, before it is read
    loaded.load()
    loaded.remove_image("image")
    loaded.add_image(tio.ScalarImage(tensor=loaded[EEP].data.clone(), affine=loaded["label"].affine), "image")
    return loaded


@pytest.mark.parametrize(
    "transform",
    [
        lambda: tio.RandomFlip(axes=(0, 2), flip_probability=1),
        lambda: tio.RandomAffine(scales=0.2, degrees=20, translation=2),
        lambda: tio.RandomElasticDeformation(num_control_points=5, max_displacement=1),
        lambda: tio.CropOrPad((13, 6, 9)),
    ],
)
def test_it_moves_as_the_image_does(subject: tio.Subject, transform: Any) -> None:
    assert subject[EEP].data.shape[0] == len(NAMES)
    torch.manual_seed(2)
    moved = training_transform([transform()], (4, 4, 4))(subject)
    torch.testing.assert_close(moved[EEP].data, moved["image"].data)
    assert not torch.equal(moved[EEP].data, subject[EEP].data)
    assert moved[EEP].spatial_shape == moved["label"].spatial_shape
    mass = moved[EEP].data.sum(0)
    assert bool((mass > -1e-3).all() and (mass < 1 + 1e-2).all())


def test_a_flip_by_hand(subject: tio.Subject) -> None:
    moved = training_transform([tio.RandomFlip(axes=0, flip_probability=1)], (4, 4, 4))(subject)
    torch.testing.assert_close(moved[EEP].data, subject[EEP].data.flip(1))


def test_intensity_transforms_leave_it_alone(subject: tio.Subject) -> None:
    transforms = [
        tio.RandomNoise(std=1),
        tio.OneOf([tio.RandomGamma(log_gamma=(0.5, 0.6)), tio.RandomBlur(std=(2, 3))]),
    ]
    changed = training_transform(transforms, (4, 4, 4))(subject)
    assert torch.equal(changed[EEP].data, subject[EEP].data)
    assert not torch.equal(changed["image"].data, subject["image"].data)


def test_padding_up_to_the_patch_says_that_there_is_none(subject: tio.Subject) -> None:
    edge = max(subject.spatial_shape) + 4
    padded = training_transform([], (edge,) * 3)(subject)
    assert padded[EEP].spatial_shape == (edge,) * 3
    mass = padded[EEP].data.sum(0)
    assert int((mass > 0.5).sum()) == subject["label"].data.numel()
    assert bool((mass[(mass <= 0.5)] == 0).all())
