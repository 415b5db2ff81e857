"""How long a run is, what is given as a part of it, and what is said before its first step."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, GradientAccumulationScheduler
from lightning.pytorch.demos.boring_classes import BoringModel

from riskft.errors import InputError
from riskft.losses.distill import DistilledLoss
from riskft.losses.length import counted
from riskft.losses.refresh import RefreshedLoss
from riskft.training.average import AveragedWeights, share_of_start
from riskft.training.freeze import BackboneFreeze
from riskft.training.length import RunLength, is_endless, run_length
from riskft.training.plan import RunPlan, in_words, problems, validations
from riskft.training.trainer import RiskTrainer


def trainer(tmp_path, kind=Trainer, **options):
    return kind(
        **{
            "accelerator": "cpu", "default_root_dir": tmp_path, "logger": False, "enable_checkpointing": False,
            "enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 7, **options,
        }
    )  # fmt: skip


class Watched(BoringModel):
    """Keeps the length that it is told, and counts what is really done."""

    def __init__(self):
        super().__init__()
        self.batches, self.length = 0, None

    def on_train_start(self):
        self.length = run_length(self.trainer)

    def on_train_batch_end(self, *arguments):
        self.batches += 1


@pytest.mark.parametrize(
    ("options", "steps", "batches", "epochs"),
    [
        ({"max_epochs": 3}, 21, 21, 3),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 9, 21, 3),  # the last step of an epoch takes one batch
        ({"max_epochs": 3, "max_steps": 5}, 5, 5, 1),
        ({"max_epochs": -1, "max_steps": 16}, 16, 16, 3),
        ({"max_epochs": -1, "max_steps": 5, "accumulate_grad_batches": 3}, 5, 7 + 6, 2),
        ({"max_epochs": 3, "callbacks": [GradientAccumulationScheduler({0: 1, 1: 7})]}, 7 + 1 + 1, 21, 3),
    ],
)
def test_the_length_is_what_is_done(tmp_path, options, steps, batches, epochs):
    model, run = Watched(), trainer(tmp_path, limit_val_batches=0, **options)
    run.fit(model)
    assert (model.length.steps, model.length.batches, model.length.epochs) == (steps, batches, epochs)
    assert (run.global_step, model.batches) == (steps, batches)


@pytest.mark.parametrize(
    ("options", "endless"),
    [
        ({}, False),  # Lightning's 1000 epochs
        ({"max_epochs": -1}, True),
        ({"max_epochs": -1, "max_steps": 3}, False),
        ({"max_time": "00:00:01:00"}, True),
        ({"max_time": "00:00:01:00", "max_epochs": 3}, False),
    ],
)
def test_what_has_no_end(tmp_path, options, endless):
    assert is_endless(trainer(tmp_path, **options)) is endless


def test_parts_of_a_run_without_end_are_refused_before_anything_is_done(tmp_path):
    run = trainer(tmp_path, RiskTrainer, max_epochs=-1, callbacks=[AveragedWeights(), BackboneFreeze()])
    with pytest.raises(InputError, match="no set number of steps") as found:
        run.fit(BoringModel())
    assert "AveragedWeights: span" in str(found.value)
    assert "BackboneFreeze: unfreeze_at_epoch" in str(found.value)


@pytest.mark.parametrize("value", [-1, 1.5, -0.1, math.nan, math.inf, True])
@pytest.mark.parametrize("make", [lambda value: RefreshedLoss(start=value), AveragedWeights, BackboneFreeze])
def test_lengths_that_are_none(make, value):
    with pytest.raises(InputError, match="or a fraction of the run between 0 and 1"):
        make(value)


# -- refreshed risk ---------------------------------------------------------------------------------------------------


def steps_with_the_static_map(loss, batches):
    """Trains for so many batches with a static map of 5; returns which of them it weighted."""
    torch.manual_seed(0)
    static, seen = torch.full((1, 4, 4, 4), 5.0), []
    inner = loss
    while isinstance(inner, (RefreshedLoss, DistilledLoss)):
        inner = inner.loss
    inner.voxel_losses = lambda entropy, weight: seen.append(weight) or entropy
    for _ in range(batches):
        logits = torch.randn(1, 2, 4, 4, 4)
        loss(logits, torch.randint(0, 2, (1, 4, 4, 4)), static, None, torch.full_like(logits, 0.5))
    return [torch.equal(weight, static) for weight in seen]


@pytest.mark.parametrize(("batches", "first", "every"), [(300, 75, 25), (24, 6, 2), (4, 1, 1), (320, 80, 27)])
def test_refreshing_is_a_part_of_the_run(batches, first, every, caplog):
    loss = RefreshedLoss()
    with caplog.at_level(logging.INFO, "riskft"):
        loss.runs_for(batches)
    assert f"static for {first} steps, then refreshed every {every} steps" in caplog.text
    if batches < 30:
        assert steps_with_the_static_map(loss, batches) == [True] * first + [False] * (batches - first)


def test_a_loss_around_it_hands_the_length_on():
    loss = DistilledLoss(RefreshedLoss(start=0.5, every=0.25))
    loss.take_phase_1(torch.eye(2), 0.5)
    assert loss.needs_length
    loss.runs_for(8)
    assert steps_with_the_static_map(loss, 8) == [True] * 4 + [False] * 4
    assert not DistilledLoss(RefreshedLoss(start=3, every=2)).needs_length
    assert not DistilledLoss().needs_length


@pytest.mark.parametrize("options", [{"start": 75, "every": 25}, {"start": 0, "every": 24}, {"start": 24, "every": 1}])
def test_steps_that_never_come_are_said(options, caplog):
    RefreshedLoss(**options).runs_for(24)
    assert "riskft.RefreshedLoss never refreshes: the run has 24 steps" in caplog.text
    assert "Give fractions of the run" in caplog.text


def test_a_run_of_one_step_is_not_told_to_give_the_parts_that_it_has(caplog):
    RefreshedLoss(start=0.25, every=0.0833).runs_for(1)
    assert "comes after 1 (start: 0.25, every: 0.0833). Train for longer" in caplog.text
    one = SimpleNamespace(
        train_dataloader=[], num_training_batches=2, max_epochs=1, max_steps=-1, callbacks=[],
        accumulate_grad_batches=1, current_epoch=100,
    )  # fmt: skip
    BackboneFreeze(0.1).on_train_start(one, None)
    assert "frozen until epoch 1 (unfreeze_at_epoch: 0.1). Train for more epochs" in caplog.text


def test_a_part_of_a_run_of_unknown_length_is_an_error():
    with pytest.raises(InputError, match="fractions of a run of unknown length"):
        steps_with_the_static_map(RefreshedLoss(), 1)


def test_a_resumed_loss_keeps_its_steps_and_says_so(caplog):
    loss, longer = RefreshedLoss(start=0.5, every=0.25), RefreshedLoss(start=0.5, every=0.25)
    loss.runs_for(8)
    steps_with_the_static_map(loss, 2)
    longer.load_state_dict(loss.state_dict())
    longer.runs_for(16)
    assert "static map for 4 steps, then a new table every 2 steps. Its options would give 8 and 4" in caplog.text
    assert steps_with_the_static_map(longer, 4) == [True, True, False, False]


# -- averages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("span", "steps"), [(0.1, 300), (5, 300), (1000, 300), (0.5, 4)])
def test_the_average_and_what_is_left_of_the_first_weights(span, steps):
    callback = AveragedWeights(span)
    callback.steps = counted(span, steps, least=1)
    mean = torch.ones(())  # the first step's weights are 1, all others' 0
    for averaged in range(1, steps):
        mean = callback._averaged(mean, torch.zeros(()), torch.tensor(averaged))
    assert share_of_start(callback, steps) == pytest.approx(float(mean), rel=1e-4)
    # by hand: the mean of the first n, which then fades with each step
    n = min(counted(span, steps), steps)
    assert float(mean) == pytest.approx(1 / n * (1 - 1 / n) ** (steps - n), rel=1e-4)


def test_lightning_s_average_leaves_74_percent_of_the_start_in_300_steps():
    assert share_of_start(EMAWeightAveraging(), 300) == pytest.approx(0.999**299, rel=1e-4)
    assert share_of_start(EMAWeightAveraging(decay=0.9, update_every_n_steps=3), 300) == pytest.approx(
        0.9**99, rel=1e-3
    )
    assert share_of_start(object(), 300) is None


# -- what is said -----------------------------------------------------------------------------------------------------


def plan_of(**options):
    defaults = {
        "enable_validation": True, "val_check_batch": 10, "check_val_every_n_epoch": 1, "max_steps": -1,
        "max_epochs": 5, "limit_val_batches": 1.0, "loggers": [object()], "log_every_n_steps": 10, "callbacks": [],
    }  # fmt: skip
    return SimpleNamespace(**{**defaults, **options})


LENGTH = RunLength(epochs=5, steps=50, batches=50, epoch_batches=10, whole_epochs=5)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 5),
        ({"check_val_every_n_epoch": 2}, 2),
        ({"val_check_batch": 5}, 10),
        ({"check_val_every_n_epoch": None, "val_check_batch": 15}, 3),
        ({"check_val_every_n_epoch": 6}, 0),
        ({"enable_validation": False}, 0),
    ],
)
def test_how_often_a_run_is_validated(options, count):
    assert validations(plan_of(**options), LENGTH) == count


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"check_val_every_n_epoch": 10}, "there will be no best.ckpt: the run has 50 steps in 5 epochs"),
        ({"max_steps": 1000}, "trainer.max_steps is 1000, but the run has 50 steps"),
        ({"log_every_n_steps": 51}, "no training loss is logged"),
        ({"callbacks": [EMAWeightAveraging()]}, "EMAWeightAveraging still holds 95% of the first weights"),
        ({"callbacks": [AveragedWeights()]}, None),
    ],
)
def test_what_a_run_is_too_short_for(options, said):
    found = problems(plan_of(**options), LENGTH)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize("options", [{"max_epochs": 0}, {"max_epochs": 1, "limit_train_batches": 0}])
def test_a_run_without_a_step_says_so(tmp_path, options, caplog):
    trainer(tmp_path, **options, callbacks=[RunPlan()]).fit(BoringModel())
    assert "Nothing was trained" in caplog.text


def test_durations():
    assert [in_words(seconds) for seconds in (0.1, 42.4, 99, 100, 3600, 7260)] == [
        "1 s", "42 s", "99 s", "2 min", "60 min", "2 h 1 min"
    ]  # fmt: skip


def test_freezing_is_a_part_of_the_run_and_a_backbone_that_is_never_trained_is_said(caplog):
    for epochs, given, expected in ((50, 0.1, 5), (200, 0.1, 20), (3, 0.1, 1), (5, 10, 10)):
        run = SimpleNamespace(
            train_dataloader=[], num_training_batches=2, max_epochs=epochs, max_steps=-1, callbacks=[],
            accumulate_grad_batches=1, current_epoch=100,
        )  # fmt: skip
        callback = BackboneFreeze(given)
        caplog.clear()
        callback.on_train_start(run, None)
        assert callback.epoch == expected
        assert ("never trains the backbone: the run has 5 epochs" in caplog.text) is (epochs == 5)
