"""The patch queue: every subject equally often, other orders, the same again after a resume, shares of ranks."""

import json
import os
from collections import Counter
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
import torchio as tio
from fit_and_record import main as fit_and_record
from forked_runs import Forked, free_port
from lightning.pytorch import LightningModule, Trainer

from riskft.data.patches.augment import training_transform
from riskft.data.patches.queue import PatchLoader
from riskft.data.patches.volumes import PatchesOfWholes
from riskft.errors import InputError

PATCH = (3, 3, 3)


def subjects(count: int) -> list[tio.Subject]:
    generator = torch.Generator().manual_seed(0)
    return [
        tio.Subject(
            image=tio.ScalarImage(tensor=torch.rand(1, 7, 6, 5, generator=generator) + number),
            label=tio.LabelMap(tensor=torch.zeros(1, 7, 6, 5, dtype=torch.uint8)),
            foreground_fraction=torch.tensor(0.0),
            name=f"p{number}",
        )
        for number in range(count)
    ]


def loader_of(count=4, samples=3, length=100, augment=(), batch_size=2, **options) -> PatchLoader:
    volumes = tio.SubjectsDataset(subjects(count), transform=training_transform(list(augment), PATCH))
    source = PatchesOfWholes(volumes, tio.UniformSampler(PATCH), samples, numbers=4)
    return PatchLoader(source, batch_size, length, **options)


def epoch(loader, number: int) -> list[tuple[str, bytes]]:
    """Returns (subject, patch) in the order of an epoch."""
    loader.sampler.set_epoch(number)
    return [
        (name, patch.numpy().tobytes())
        for batch in loader
        for name, patch in zip(batch.subjects, batch.image, strict=True)
    ]


def names(patches) -> list[str]:
    return [name for name, _ in patches]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 12, 100])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_each_subject_gives_its_patches_once_an_epoch(length, workers):
    loader = loader_of(4, 3, length, num_workers=workers)
    for number in range(3):
        assert Counter(names(epoch(loader, number))) == {f"p{k}": 3 for k in range(4)}


def test_without_set_epoch_too():
    loader = loader_of(4, 3, 5)
    for _ in range(2):
        assert Counter(name for batch in loader for name in batch.subjects) == {f"p{k}": 3 for k in range(4)}


@pytest.mark.parametrize(("length", "volumes"), [(8, 2), (2, 1), (9, 3), (100, 4)])
def test_patches_of_whole_volumes_are_shuffled_together(length, volumes):
    seen = names(epoch(loader_of(4, 3, length, batch_size=3), 0))
    together = [set(seen[start : start + 3 * volumes]) for start in range(0, 12, 3 * volumes)]
    assert sum(len(part) for part in together) == 4  # no volume is in two of them


def test_epochs_have_other_orders_and_patches():
    loader = loader_of(6, 2)
    epochs = [epoch(loader, number) for number in range(4)]
    assert len({tuple(names(patches)) for patches in epochs}) == 4
    assert len({frozenset(patches) for patches in epochs}) == 4


@pytest.mark.parametrize("augment", [(), (tio.RandomNoise(),)])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_depends_on_its_seed_and_number_alone(augment, workers):
    def loader(seed=5):
        return loader_of(5, 2, 4, augment, seed=seed, num_workers=workers)

    undisturbed = loader()
    expected = [epoch(undisturbed, number) for number in range(3)]
    resumed = loader()
    iter(resumed)  # Lightning makes the first iterator before the first set_epoch
    torch.rand(7)
    resumed.sampler.set_epoch(2)
    assert epoch(resumed, 2) == expected[2]
    # an epoch that was left in the middle leaves nothing behind
    broken = loader()
    broken.sampler.set_epoch(0)
    next(iter(broken))
    assert epoch(broken, 1) == expected[1]
    assert epoch(loader(seed=6), 1) != expected[1]


def test_lightning_s_order_of_calls_does_not_matter():
    """The first epoch's iterator is made before ``set_epoch``, the later ones' after it."""

    def patches(first):
        loader = loader_of(5, 2, seed=5)
        steps = [lambda: loader.sampler.set_epoch(1), lambda: iter(loader)]
        done = [step() for step in (steps if first else steps[::-1])]
        iterator = next(step for step in done if step is not None)
        return [batch.image.numpy().tobytes() for batch in iterator]

    assert patches(True) == patches(False)


@pytest.mark.parametrize("count", [4, 6])
def test_ranks_share_the_subjects(count):
    loaders = [loader_of(count, 2, rank=rank, world_size=2, seed=3) for rank in (0, 1)]
    shares = []
    for number in range(3):
        first, second = (names(epoch(loader, number)) for loader in loaders)
        assert not set(first) & set(second)
        assert Counter(first + second) == {f"p{k}": 2 for k in range(count)}
        shares.append(frozenset(first))
    assert len(set(shares)) > 1  # reshuffled over the ranks, not only inside them


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_take_equally_many_steps_with_an_odd_number(count, world_size):
    loaders = [loader_of(count, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    shares = [epoch(loader, 0) for loader in loaders]
    assert {len(share) for share in shares} == {2 * -(-count // world_size)}
    assert {len(loader) for loader in loaders} == {-(-count // world_size)}
    assert {name for share in shares for name in names(share)} == {f"p{k}" for k in range(count)}


def test_ranks_draw_other_patches_of_a_repeated_subject():
    first, second = (
        epoch(loader_of(1, 4, rank=rank, world_size=2), 0) for rank in (0, 1)
    )  # fmt: skip
    assert names(first) == names(second) == ["p0"] * 4
    assert set(first) != set(second)


@pytest.mark.parametrize(("batch_size", "batches"), [(2, 7), (4, 3), (5, 3), (15, 1)])
def test_the_last_incomplete_batch_is_dropped(batch_size, batches):
    loader = loader_of(5, 3, batch_size=batch_size)
    assert len(loader) == batches
    patches = epoch(loader, 0)
    assert len(patches) == batches * batch_size
    # and what was left over is not taken into the next epoch
    assert max(Counter(names(epoch(loader, 1))).values()) <= 3


def test_length_needs_no_walk_over_the_subjects(monkeypatch):
    made = loader_of(5, 3, world_size=2)
    monkeypatch.setattr(tio.SubjectsDataset, "dry_iter", None)
    assert len(made) == 4


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_in_a_file_keeps_its_message(workers, monkeypatch):
    def patches(self, visit):
        raise InputError("p0: changed during the run:", ["image.nii: truncated"])

    monkeypatch.setattr(PatchesOfWholes, "patches", patches)
    with pytest.raises(InputError) as caught:
        next(iter(loader_of(num_workers=workers)))
    assert str(caught.value) == "p0: changed during the run:\n  - image.nii: truncated"
    assert caught.value.problems == ("image.nii: truncated",)


def test_a_thread_collates_the_same_batches(monkeypatch):
    """As for a GPU, but in ordinary memory."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **{**options, "pin_memory": False}))
    loader = loader_of(5, 2, seed=5, pin_memory=True)
    torch.manual_seed(0)
    ahead = [batch.image for batch in loader]
    torch.manual_seed(0)
    plain = [batch.image for batch in loader_of(5, 2, seed=5)]
    assert len(plain) == 5
    assert all(torch.equal(one, other) for one, other in zip(ahead, plain, strict=True))
    next(iter(loader))  # an epoch may be abandoned


class Recorder(LightningModule):
    """Trains nothing and records its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[tuple[str, float]]] = {}

    def training_step(self, batch, batch_idx):
        torch.rand(3)  # as dropout does
        values = batch.image.flatten(1).sum(1).tolist()
        self.seen.setdefault(self.current_epoch, []).extend(zip(batch.subjects, values, strict=True))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, loader, epochs: int, checkpoint: Path | None = None) -> tuple[Recorder, Trainer]:
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return module, trainer


def test_lightning_starts_each_epoch_and_a_resumed_run_sees_the_same(tmp_path):
    def loader():
        return loader_of(4, 2, seed=1)

    whole, _ = fit(tmp_path, loader(), 3)
    assert sorted(whole.seen) == [0, 1, 2]
    for seen in whole.seen.values():
        assert Counter(name for name, _ in seen) == {f"p{k}": 2 for k in range(4)}
    assert len({tuple(seen) for seen in whole.seen.values()}) == 3
    torch.manual_seed(99)
    first, trainer = fit(tmp_path, loader(), 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.manual_seed(100)
    second, _ = fit(tmp_path, loader(), 3, tmp_path / "last.ckpt")
    assert {**first.seen, **second.seen} == whole.seen
    assert sorted(second.seen) == [2]


@pytest.mark.slow
def test_no_worker_outlives_the_training(tmp_path):
    before = set(active_children())  # those of other tests may wait for the garbage collection
    fit(tmp_path, loader_of(4, 2, num_workers=1), 2)
    assert set(active_children()) <= before


@pytest.mark.slow
def test_a_long_queue_needs_few_open_files(monkeypatch):
    """Workers hand over tensors as open files, of which many systems allow 1024."""
    monkeypatch.setattr("riskft.data.patches.queue.SHARED", 2)
    patches = iter(loader_of(30, 1, length=30, num_workers=1))
    before = len(os.listdir("/dev/fd"))
    next(patches)  # of 30 volumes, with three tensors each
    assert len(os.listdir("/dev/fd")) < before + 30


@pytest.mark.slow
def test_two_processes_see_together_what_one_sees(tmp_path, tiny_manifest):
    """A real two-process fit with the data module, the processes seeded differently on purpose."""
    port = free_port()

    def work() -> None:
        fit_and_record(str(tiny_manifest), str(tmp_path / "two"), "2")

    processes = [Forked(work, tmp_path / f"log.{rank}", rank, 2, port) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0], processes[0].text
    fit_and_record(str(tiny_manifest), str(tmp_path / "one"), "1")

    def read(name, rank):
        return json.loads((tmp_path / name / f"rank{rank}.json").read_text())

    one, (first, second) = read("one", 0), (read("two", rank) for rank in (0, 1))
    assert set(one["train"]) == {"0", "1", "2"}
    for number, seen in one["train"].items():
        here, there = first["train"][number], second["train"][number]
        assert not set(here) & set(there)
        assert Counter(here + there) == Counter(seen) == {f"case{k:02d}": 2 for k in range(4)}
    assert len({frozenset(share) for share in first["train"].values()}) > 1
    # a rank without a share repeats a case, so that Lightning does not leave it out of the collectives
    assert one["val"] == first["val"] == second["val"] == ["case04"] * 3
