"""Optimizers, schedules and inferers that cannot work are refused before phase 1; those that can are left alone."""

from functools import partial

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from riskft.errors import InputError
from riskft.source.source import Source
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.module import RiskModule
from riskft.training.trials import try_inferer, try_training

SGD = partial(torch.optim.SGD, lr=1.0)
POWER = torch.optim.lr_scheduler.PolynomialLR


def test_a_sound_choice_is_taken():
    try_training(SGD, lambda optimizer, steps: POWER(optimizer, steps, power=0.9))
    try_inferer("model.inferer", SlidingWindowInferer(8, mode="gaussian"), 2, (8, 8, 8))


@pytest.mark.parametrize(
    ("power", "words"),
    [(-1.0, r"fails when it is used \(ZeroDivisionError"), (float("nan"), "gives the learning rate nan")],
)
def test_a_schedule_that_leads_nowhere(power, words):
    with pytest.raises(InputError, match=rf"model.schedule \(PolynomialLR\) {words}"):
        try_training(SGD, lambda optimizer, steps: POWER(optimizer, steps, power=power))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": float("nan")}, "NaN"),
        ({"padding_mode": "none"}, "Unsupported option"),
        ({"device": "no"}, "RuntimeError: Expected one of cpu"),
    ],
)
def test_an_inferer_that_fails_at_work(options, words):
    with pytest.raises(InputError, match=rf"model.inferer \(SlidingWindowInferer\) fails when it is used .*{words}"):
        try_inferer("model.inferer", SlidingWindowInferer(8, **options), 1, (8, 8, 8))


def test_the_source_s_own_inferer_is_tried_too():
    source = Source(torch.nn.Conv3d(1, 3, 1), None, inferer=SlidingWindowInferer(8, overlap=1.0))
    made = RiskModule(source, ["background", "a", "b"], 1, inferer=SlidingWindowInferer(8))
    with pytest.raises(InputError, match=r"model.source.inferer \(SlidingWindowInferer\) fails .*overlap must be"):
        made.try_out()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: 3, "it holds a int, expected a mapping"),
        (lambda content: content["state_dict"], "it has no state_dict and no pytorch-lightning_version"),
        (lambda content: {**content, "epoch": "x"}, "its epoch is of type str, expected int"),
        (lambda content: {**content, "loops": [], "optimizer_states": {}}, "its loops is of type list, expected dict"),
    ],
)
def test_a_checkpoint_of_another_kind(tmp_path, change, words):
    content = {"state_dict": {"a": torch.zeros(1)}, "pytorch-lightning_version": "2.6", "epoch": 0}
    torch.save(content, tmp_path / "sound.ckpt")
    assert WholeCheckpointIO().load_checkpoint(tmp_path / "sound.ckpt", weights_only=True)["epoch"] == 0
    torch.save(change(content), tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=words):
        WholeCheckpointIO().load_checkpoint(tmp_path / "other.ckpt", weights_only=True)
