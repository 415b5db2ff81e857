"""Refreshed risk: what is counted, when it is used, its safeguards, and that all processes have one table."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from riskft.errors import InputError
from riskft.losses import fused
from riskft.losses.fused import loss_terms
from riskft.losses.refresh import RefreshedLoss, count_voxels, weight_table
from riskft.losses.weighted import RiskWeightedLoss
from riskft.risk.distribution import BINS, ClassDistribution
from riskft.risk.mapping import RiskMapping
from riskft.risk.weighting import LinearWeight, RankNormalise

IGNORE = 255
SHAPE = (7, 6, 5)


class Recorded(RiskWeightedLoss):
    """Keeps the weights that it uses."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def voxel_losses(self, entropy, weight):
        self.seen.append(weight)
        return super().voxel_losses(entropy, weight)


def batch(seed=0, classes=3, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (2, *SHAPE), generator=generator)
    target[target == 2] = torch.where(torch.rand(target[target == 2].shape, generator=generator) < 0.1, 2, 0)  # rare
    truth = torch.nn.functional.one_hot(target, classes).movedim(-1, 1)
    logits = torch.randn(2, classes, *SHAPE, generator=generator) + sharpness * truth
    target[:, 0] = IGNORE
    return logits, target


def plain(**options):
    return RefreshedLoss(Recorded(), **{"start": 0, "every": 1, "memory": 1, **options})


def hardness(logits, target):
    return loss_terms(logits, target, IGNORE).entropy  # to the last digit, so that bins are equal


# -- what the weights are ---------------------------------------------------------------------------------------------


def test_weights_are_the_ranks_of_the_last_step_s_hardness():
    loss = plain(normalise=RankNormalise(0), weight=LinearWeight(2), balance=False, temper=False)
    logits, target = batch()
    loss(logits, target)
    loss(logits, target)
    assert loss.loss.seen[0] is None
    got, h = loss.loss.seen[1], hardness(logits, target)
    assert got.dtype == torch.float32
    for index in range(3):
        inside = target == index
        own = h[inside].double().numpy()
        rank = ((own[:, None] > own).sum(1) + 0.5 * (own[:, None] == own).sum(1)) / len(own)
        # values in one bin (0.25 % wide) share a rank
        np.testing.assert_allclose(got[inside], 1 + 2 * rank, atol=2 * 4 / len(own))
        order = np.argsort(own)
        assert (np.diff(got[inside].numpy()[order]) >= 0).all()
    assert (got[target == IGNORE] == 1).all()


def test_each_class_s_mean_weight_is_1_and_a_rare_one_is_not_drowned():
    loss = plain(temper=False)
    logits, target = batch()
    loss(logits, target)
    loss(logits, target)
    got = loss.loss.seen[1]
    for index in range(3):
        assert float(got[target == index].mean()) == pytest.approx(1, abs=1e-4)
        assert float(got[target == index].std()) > 0.2


def test_balanced_by_the_gradient_no_class_gains_any():
    loss = plain(balance="gradient", temper=False)
    logits, target = batch()
    loss(logits, target)
    loss(logits, target)
    got, size = loss.loss.seen[1], 1 - (-hardness(logits, target)).exp()
    for index in range(3):
        inside = target == index
        assert float((got * size)[inside].sum() / size[inside].sum()) == pytest.approx(1, abs=0.01)
        assert float(got[inside].std()) > 0.2


@pytest.mark.parametrize(("sharpness", "spread"), [(0.0, 0.0), (3.0, 0.1)])
def test_a_network_that_knows_nothing_leaves_plain_weights(sharpness, spread):
    loss = plain()
    logits, target = batch(sharpness=sharpness)
    if not sharpness:
        logits = torch.zeros_like(logits)  # log 3 > H(Y)
    loss(logits, target)
    loss(logits, target)
    found = loss.loss.seen[1]
    assert float(found.std()) == 0 if spread == 0 else float(found.std()) > spread


def test_weights_are_tempered_by_the_explained_entropy():
    logits, target = batch()
    free, tempered = plain(temper=False), plain()
    for loss in (free, tempered):
        loss(logits, target)
        loss(logits, target)
    counted = target != IGNORE
    share = torch.bincount(target[counted]).double() / counted.sum()
    known = 1 - float(hardness(logits, target)[counted].mean()) / -float((share * share.log()).sum())
    assert 0 < known < 1
    expected = 1 + known * (free.loss.seen[1] - 1)
    torch.testing.assert_close(tempered.loss.seen[1], expected, rtol=1e-3, atol=1e-3)


def test_a_class_that_was_not_seen_lately_has_weight_1():
    counts = torch.zeros(3, BINS, dtype=torch.int64)
    counts[0, ClassDistribution.bin_of(torch.tensor([0.1, 2.0]))] = torch.tensor([90, 10])
    counts[1, ClassDistribution.bin_of(torch.tensor([0.3]))] = 20
    table = weight_table(counts, RiskMapping(temper=False))
    assert table.shape == (4 * BINS,)
    assert table.isfinite().all()
    assert (table[2 * BINS :] == 1).all()
    mean = (table[: 2 * BINS].view(2, BINS).double() * counts[:2]).sum(1) / counts[:2].sum(1)
    torch.testing.assert_close(mean, torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=0)
    assert (weight_table(torch.zeros_like(counts), RiskMapping()) == 1).all()


# -- when -------------------------------------------------------------------------------------------------------------


def test_static_map_until_the_start_and_a_table_every_so_many_steps():
    loss = plain(start=3, every=2, memory=1)
    static = torch.full((2, *SHAPE), 3.0)
    fed = [batch(seed) for seed in range(7)]
    for logits, target in fed:
        loss(logits, target, static)
    seen = loss.loss.seen
    assert all(torch.equal(weight, static) for weight in seen[:3])
    assert not any(torch.equal(weight, static) for weight in seen[3:])

    def made_of(steps, of):
        counts = torch.zeros(3, BINS, dtype=torch.int64)
        for logits, target in (fed[step] for step in steps):
            h, counted = hardness(logits, target), target != IGNORE
            for index in range(3):
                bins = ClassDistribution.bin_of(h[counted & (target == index)])
                counts[index] += torch.bincount(bins, minlength=BINS)
        table = weight_table(counts, loss.mapping).view(4, BINS)
        logits, target = fed[of]
        found = table[target.masked_fill(target == IGNORE, 0), ClassDistribution.bin_of(hardness(logits, target))]
        return torch.where(target == IGNORE, 1.0, found)

    assert torch.equal(seen[3], made_of([0, 1], 3))
    assert torch.equal(seen[4], made_of([2, 3], 4))
    assert torch.equal(seen[5], made_of([2, 3], 5))
    assert torch.equal(seen[6], made_of([4, 5], 6))


@pytest.mark.parametrize("ignore", [255, -1, 1])
@pytest.mark.parametrize("label", [torch.int64, torch.int32, torch.int16, torch.float32])
def test_voxels_are_counted_and_looked_up_for_any_label(ignore, label, monkeypatch):
    monkeypatch.setattr(fused, "_ON_CPU", 100)  # several blocks
    logits, target = batch()
    target = target.masked_fill(target == ignore, 0).masked_fill(target == IGNORE, ignore).to(label)
    entropy = loss_terms(logits, target, ignore).entropy
    before, table = target.clone(), torch.rand(4 * BINS)
    counts, weights = count_voxels(entropy, target, 3, ignore, table)
    assert torch.equal(target, before)
    known = target != ignore
    cells = target.long() * BINS + ClassDistribution.bin_of(entropy)
    assert torch.equal(counts.flatten().long(), torch.bincount(cells[known], minlength=3 * BINS))
    assert torch.equal(weights[known], table[cells[known]])
    assert torch.equal(weights[~known], table[3 * BINS + BINS // 2].expand(int((~known).sum())))


def test_tables_cover_the_recent_steps():
    long, short = plain(memory=5), plain(memory=1)
    for seed in range(4):
        for loss in (long, short):
            loss(*batch(seed, sharpness=seed))
    assert len(long._windows) == 4
    assert len(short._windows) == 2
    assert not torch.equal(long.loss.seen[-1], short.loss.seen[-1])


def test_without_training_nothing_is_counted():
    loss = plain().eval()
    loss(*batch())
    state = loss.get_extra_state()
    assert state == {"steps": 0, "windows": [], "settled": None, "table": None, "timing": [0, 1]}


def test_before_the_first_table_and_with_weight_1_it_is_the_plain_loss():
    logits, target = batch()
    weight = torch.rand(2, *SHAPE)
    loss = RefreshedLoss()
    loss.runs_for(300)
    assert torch.equal(loss(logits, target, weight), RiskWeightedLoss()(logits, target, weight))


def test_no_gradient_goes_through_the_weights():
    loss = plain()
    logits, target = batch()
    loss(logits, target)
    logits.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(logits, target), logits)
    other = logits.detach().clone().requires_grad_(True)
    weighted = RiskWeightedLoss()(other, target, loss.loss.seen[1])
    (expected,) = torch.autograd.grad(weighted, other)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deep_supervision_half_precision_and_nothing_but_ignored_voxels(dtype):
    loss = plain()
    logits, target = batch()
    outputs = [(logits.sign() * 1e4).to(dtype), torch.randn(2, 3, 3, 3, 2).to(dtype)]
    for label in (target, torch.full_like(target, IGNORE), target[:, None], target):
        for output in outputs:
            output.requires_grad_(True)
        value = loss(outputs, label)
        gradients = torch.autograd.grad(value, outputs)
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


# -- checkpoints and processes ----------------------------------------------------------------------------------------


def test_a_restored_loss_continues_as_the_original(tmp_path):
    loss = plain(start=2, every=2, memory=2)
    for seed in range(5):
        loss(*batch(seed))
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    again = plain(start=2, every=2, memory=2)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(5, 9):
        for item in (loss, again):
            item(*batch(seed))
        assert torch.equal(loss.loss.seen[-1], again.loss.seen[-1])
    copied = copy.deepcopy(loss)  # as averaging of weights does
    assert not list(loss.buffers())
    assert torch.equal(copied._windows[0], loss._windows[0])


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    loss = plain(every=2, memory=2, start=1)
    for step in range(5):
        loss(*batch(2 * step + rank))
    assert loss._table is not None
    (folder / f"{rank}.json").write_text(json.dumps(loss._table[loss._table != 1].tolist()))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_make_one_table_of_the_patches_of_both(tmp_path):
    multiprocessing.start_processes(work, (tmp_path,), nprocs=2, start_method="fork")
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1]
    alone = plain(every=4, memory=2, start=1)
    for seed in range(9):
        alone(*batch(seed))
    assert alone._table is not None
    assert alone._table[alone._table != 1].tolist() == both[0]


@pytest.mark.parametrize(("name", "value"), [("start", -1), ("every", 0), ("memory", 0)])
def test_bad_options(name, value):
    with pytest.raises(InputError, match=f"`{name}` to be at least"):
        RefreshedLoss(**{name: value})


def work_resumed(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    options = {"every": 4, "memory": 2, "start": 1}
    whole, parts = plain(**options), plain(**options)
    for step in range(6):  # into the second window
        for loss in (whole, parts):
            loss(*batch(2 * step + rank))
    parts.settle()
    if rank == 0:
        torch.save(parts.state_dict(), folder / "state.pt")
    dist.barrier()
    resumed = plain(**options)
    resumed.load_state_dict(torch.load(folder / "state.pt", weights_only=True))
    for step in range(6, 9):
        for loss in (whole, resumed):
            loss(*batch(2 * step + rank))
    same = torch.equal(whole._table, resumed._table) and all(
        map(torch.equal, whole._windows[:-1], resumed._windows[:-1])
    )
    (folder / f"{rank}.json").write_text(json.dumps(same and bool((whole._table != 1).any())))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_resume_with_what_both_had_counted(tmp_path):
    multiprocessing.start_processes(work_resumed, (tmp_path,), nprocs=2, start_method="fork")
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [True, True]
