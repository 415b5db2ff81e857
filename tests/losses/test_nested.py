"""Losses around losses: what is handed on, in which precision, and with the volume's share of foreground."""

import threading

import pytest
import torch
from torch.nn.functional import cross_entropy

import riskft.losses.refresh
from riskft.losses.distill import DistilledLoss
from riskft.losses.hard_voxels import FocalLoss, TopKLoss
from riskft.losses.refresh import RefreshedLoss
from riskft.losses.weighted import Loss, RiskWeightedLoss
from riskft.risk.weighting import LinearWeight, RankNormalise

SPATIAL = (4, 3, 2)


class Innermost(Loss):
    """Records each call and its arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def take_phase_1(self, joint, knowledge):
        self.calls.append(("start", joint, knowledge))

    def settle(self):
        self.calls.append(("settle",))

    def runs_for(self, batches):
        self.calls.append(("runs for", batches))

    def forward(self, logits, target, weight=None, foreground_fraction=None, eep=None):
        self.calls.append((logits, target, weight, foreground_fraction, eep))
        return torch.as_tensor(logits if isinstance(logits, torch.Tensor) else logits[0]).sum() * 0


def batch(seed=0, classes=3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *SPATIAL, generator=generator)
    target = torch.randint(0, classes, (2, *SPATIAL), generator=generator)
    return logits, target, logits.roll(1, 2).softmax(1)


@pytest.mark.parametrize(
    "around",
    [
        DistilledLoss,
        RefreshedLoss,
        lambda loss: DistilledLoss(RefreshedLoss(loss)),
        lambda loss: RefreshedLoss(DistilledLoss(loss)),
    ],
    ids=["distilled", "refreshed", "distilled refreshed", "refreshed distilled"],
)
def test_all_hooks_reach_the_inner_loss(around):
    inner = Innermost()
    loss = around(inner)
    joint, fraction, weight = torch.rand(3, 4), torch.tensor([0.1, 0.2]), torch.rand(2, *SPATIAL)
    logits, target, eep = batch()
    loss.take_phase_1(joint, 0.7)
    (called,) = inner.calls
    assert called[0] == "start"
    assert called[1] is joint
    assert called[2] == 0.7
    loss.settle()
    assert inner.calls.pop() == ("settle",)
    loss.runs_for(300)
    assert inner.calls.pop() == ("runs for", 300)
    loss.eval()(logits, target, weight, fraction, eep)
    given = inner.calls.pop()
    assert all(one is other for one, other in zip(given, (logits, target, weight, fraction, eep), strict=True))
    assert loss.needs_eep == ("Distilled" in repr(loss))


def test_the_distilled_term_is_scaled_by_the_source_s_knowledge_when_nested():
    logits, target, eep = batch()
    found = []
    for knowledge in (0.0, 0.5, 1.0):
        loss = RefreshedLoss(DistilledLoss(RiskWeightedLoss(), factor=2.0))
        loss.take_phase_1(torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), knowledge)
        loss.runs_for(300)
        found.append(loss(logits, target, None, None, eep))
    plain = RiskWeightedLoss()(logits, target)
    torch.testing.assert_close(found[0], plain)
    torch.testing.assert_close(found[1] - plain, (found[2] - plain) / 2)
    assert found[2] > plain


class AddedUp:
    """Stands for ``torch.distributed`` between two threads: ``all_reduce`` adds up both tensors."""

    def __init__(self):
        self.own = threading.local()
        self.tensors = [None, None]
        self.barrier = threading.Barrier(2, timeout=60)

    def is_available(self):
        return True

    is_initialized = is_available

    def get_rank(self):
        return self.own.rank

    def all_reduce(self, tensor):
        self.tensors[self.own.rank] = tensor
        self.barrier.wait()
        total = self.tensors[0] + self.tensors[1]
        self.barrier.wait()
        tensor.copy_(total)


@pytest.fixture
def added_up(monkeypatch):
    group = AddedUp()
    monkeypatch.setattr(riskft.losses.refresh, "dist", group)
    return group


def on_two(group, work):
    """Returns the results of two threads."""
    results = [None, None]

    def run(rank):
        group.own.rank = rank
        results[rank] = work(rank)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def refreshed(**options):
    return RefreshedLoss(
        normalise=RankNormalise(0),
        weight=LinearWeight(2.0),
        start=1,
        every=2,
        memory=2,
        balance=False,
        temper=False,
        **options,
    )


def after_steps(loss, seeds):
    for seed in seeds:
        loss(*batch(seed)[:2])
    return loss._table


def test_processes_share_one_table(added_up, monkeypatch):
    tables = on_two(added_up, lambda rank: after_steps(refreshed(), range(rank, 10, 2)))
    assert torch.equal(*tables)
    monkeypatch.undo()
    alone = refreshed()
    alone._timing = (1, 4)  # as many patches to a table
    assert torch.equal(after_steps(alone, range(10)), tables[0])
    assert not torch.equal(after_steps(refreshed(), range(0, 10, 2)), tables[0])


def test_a_checkpoint_between_tables_counts_nothing_twice(added_up):
    def work(rank):
        settled, plain = refreshed(), refreshed()
        after_steps(settled, range(rank, 6, 2))
        settled.settle()
        settled.settle()
        after_steps(plain, range(rank, 6, 2))
        return after_steps(settled, range(6 + rank, 12, 2)), after_steps(plain, range(6 + rank, 12, 2))

    for settled, plain in on_two(added_up, work):
        assert torch.equal(settled, plain)


# -- precision and shares of foreground -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dice_sums_in_single_precision(dtype):
    """A class of 300,000 voxels: half precision ends at 65504, and bfloat16 counts no further than 256."""
    logits = torch.zeros(1, 2, 100, 60, 50, dtype=dtype)
    target = torch.zeros(1, 100, 60, 50, dtype=torch.int64)
    target[:, :25] = 1
    # p = 1/2 everywhere: 2 * 112500 / (150000 + 225000), 2 * 37500 / (150000 + 75000)
    expected = 1 - (225 / 375 + 75 / 225) / 2
    assert float(RiskWeightedLoss(ce_weight=0)(logits, target)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("options", [{"ce_weight": 0.0}, {"dice_weight": 0.0}, {}])
def test_the_loss_is_single_precision_whatever_the_logits_are(options):
    logits, target, _ = batch()
    assert RiskWeightedLoss(**options)(logits.bfloat16(), target).dtype == torch.float32


def test_patches_without_foreground_take_the_volumes_share_at_every_resolution():
    fine, coarse = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2)
    target = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    loss = RiskWeightedLoss("foreground", dice_weight=0)
    # each voxel costs log 2; N_b is a quarter of the level's voxels
    log2 = float(cross_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)))
    assert float(loss([fine, coarse], target, None, torch.tensor([0.25]))) == pytest.approx(4 * log2, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (
            RiskWeightedLoss,
            {
                "divisor": "voxels",
                "dice_weight": 1.0,
                "ce_weight": 1.0,
                "min_foreground": 1e-3,
                "ignore_index": 255,
                "deep_supervision_decay": 0.5,
                "use_map": True,
            },
        ),
        (DistilledLoss, {"factor": 1.0, "gated": True, "temper": True, "ignore_index": 255}),
        (FocalLoss, {"divisor": "voxels"}),
        (TopKLoss, {"share": 0.1}),
    ],
)
def test_documented_defaults(loss, options):
    made = loss()
    assert {name: getattr(made, name) for name in options} == options


def test_two_dimensional_levels_of_equal_depth_are_resized_along_every_axis():
    logits = [torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 2, 6)]
    target = torch.zeros(1, 4, 6, dtype=torch.int64)
    assert RiskWeightedLoss()(logits, target).isfinite()
