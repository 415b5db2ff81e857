"""A loss that is not finite ends the training before it spoils a checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked_runs import STEPS_AN_EPOCH, Study, forked
from torch import nn

from riskft.data.patches.batch import PatchBatch
from riskft.errors import InputError
from riskft.training.finite import FiniteLossGuard
from riskft.training.module import RiskModule


def spoilt_from(step: int, value: float) -> Any:
    def patch() -> None:
        original = RiskModule.training_step

        def training_step(self: RiskModule, batch: Any, batch_idx: int) -> Any:
            loss = original(self, batch, batch_idx)
            return loss * value if self.global_step == step else loss

        RiskModule.training_step = training_step  # type: ignore[method-assign]

    return patch


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_loss(tmp_path, tiny_manifest, value):
    study = Study(tmp_path, tiny_manifest)
    step = STEPS_AN_EPOCH + 1
    stopped = forked(study.arguments(), tmp_path / "log", spoilt_from(step, value))
    assert stopped.wait() == 1, stopped.text
    assert f"riskft: The loss is NaN or infinite at step {step}. No checkpoint of it is written." in stopped.text
    assert stopped.text.count("  - patch of case0") == 2
    assert "Traceback" not in stopped.text
    last = study.checkpoint()
    assert last["global_step"] == STEPS_AN_EPOCH
    weights = [weight for weight in last["state_dict"].values() if isinstance(weight, torch.Tensor)]
    assert all(torch.isfinite(weight).all() for weight in weights)
    done = forked(study.arguments("fit", "--ckpt_path", "last"), tmp_path / "done")
    assert done.wait() == 0, done.text


@pytest.mark.slow
def test_the_guard_can_be_set(tmp_path, tiny_manifest):
    study = Study(tmp_path, tiny_manifest)
    off = ["--trainer.callbacks", "[{class_path: riskft.FiniteLossGuard, init_args: {enabled: false}}]"]
    done = forked(study.arguments("fit", *off, method="scratch"), tmp_path / "log", spoilt_from(2, float("nan")))
    assert done.wait() == 0, done.text
    assert not all(torch.isfinite(weight).all() for weight in study.checkpoint()["state_dict"].values())


# -- what a GPU does, whose losses are looked at from time to time -------------------------------------------------


class Late(torch.Tensor):
    """A loss that says that it lies on a GPU."""

    @property
    def device(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(type="cuda")

    def detach(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


class Steps:
    """Takes the steps of an epoch as Lightning does, with losses on a GPU."""

    def __init__(self, every: int | None, log_every: int = 10) -> None:
        self.guard = FiniteLossGuard(every)
        self.trainer: Any = SimpleNamespace(global_step=0, log_every_n_steps=log_every, state=SimpleNamespace(fn="fit"))
        self.trainer.sanity_checking = False
        self.module: Any = nn.Linear(1, 1)

    def take(self, losses: list[float]) -> int:
        """Returns how many steps were taken before an error."""
        for index, loss in enumerate(losses):
            names, nothing = (f"s{self.trainer.global_step}a", f"s{self.trainer.global_step}b"), torch.empty(2)
            self.guard.on_train_batch_start(self.trainer, self.module, PatchBatch(names, *[nothing] * 3), index)
            self.guard.on_before_backward(self.trainer, self.module, torch.tensor(loss).as_subclass(Late))
            self.trainer.global_step += 1
            self.guard.on_train_batch_end(self.trainer, self.module, None, None, index)
        return len(losses)

    def end(self) -> None:
        self.guard.on_train_epoch_end(self.trainer, self.module)


NAN = float("nan")


def test_a_gpu_is_asked_at_times_and_names_the_first_bad_step():
    steps = Steps(4)
    assert steps.take([1.0] * 4) == 4
    with pytest.raises(InputError, match=r"at step 5\.") as error:
        steps.take([1.0, NAN, 2.0, NAN, 1.0])
    assert error.value.problems == ("patch of s5a", "patch of s5b")
    assert steps.trainer.global_step == 8


@pytest.mark.parametrize(("every", "log_every", "asked"), [(None, 2, 2), (0, 2, 3), (3, 50, 3)])
def test_how_often_a_gpu_is_asked(every, log_every, asked):
    steps = Steps(every, log_every)

    def epoch() -> None:
        steps.take([NAN, 1.0, 1.0])
        steps.end()

    with pytest.raises(InputError, match=r"at step 0\."):
        epoch()
    assert steps.trainer.global_step == asked


def test_the_end_of_the_epoch_and_validation_look_at_losses_and_weights():
    steps = Steps(100)
    steps.take([1.0, NAN])
    with pytest.raises(InputError, match=r"at step 1\."):
        steps.guard.on_validation_start(steps.trainer, steps.module)
    steps.end()  # the weights are finite here
    steps.module.bias.data.fill_(NAN)
    with pytest.raises(InputError, match="Weights have become NaN or infinite, though no loss was") as error:
        steps.end()
    assert error.value.problems == ("bias",)


def test_every_n_steps_is_checked():
    with pytest.raises(InputError, match="every_n_steps is -1"):
        FiniteLossGuard(-1)
