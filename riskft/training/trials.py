"""Tries optimizer, schedule and inferer on tiny inputs, so that they fail before phase 1."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import Inferer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from riskft.errors import InputError, first_line
from riskft.training.optimizer import trial_groups
from riskft.training.schedule import schedule_over

STEPS = 10
LARGEST = 1 << 24


def try_training(
    optimizer: Callable[[list[Any]], Optimizer], schedule: Callable[[Optimizer, int], LRScheduler] | None
) -> None:
    """Takes a few steps of an optimizer and its schedule, if any, with two parameters.

    Raises InputError if one of them rejects its options or fails, or a learning rate is not a finite number.
    """
    groups = trial_groups()
    made = optimizer(groups)

    def closure() -> float:
        for group in groups:
            group["params"][0].grad = torch.ones(1)
        return 0.0

    with _refusing("model.optimizer", made):
        made.step(closure)
    if schedule is None:
        return
    rates = schedule_over(schedule, made, STEPS)
    with _refusing("model.schedule", rates), warnings.catch_warnings():
        # does not apply in training, where the optimizer takes a step first
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
        for _ in range(STEPS):
            found = [group["lr"] for group in made.param_groups]
            if not all(isinstance(rate, int | float | torch.Tensor) and math.isfinite(rate) for rate in found):
                raise InputError(
                    f"model.schedule ({_name(rates)}) gives the learning rate {found[0]}: change its options."
                )
            rates.step()


def try_inferer(option: str, inferer: Inferer, channels: int, size: Sequence[int]) -> None:
    """Runs an inferer with an identity network over volumes one voxel smaller and larger than its window, unless large.

    Raises InputError if it fails.
    """
    if math.prod(size) * channels > LARGEST:
        return
    with _refusing(option, inferer):
        for more in (-1, 1):  # it pads the first volume, and slides over the second
            inferer(torch.zeros(1, channels, *(max(1, edge + more) for edge in size)), lambda patch: patch)


@contextmanager
def _refusing(option: str, chosen: object) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{option} ({_name(chosen)}) fails when it is used ({first_line(error)}): change its options."
        ) from error


def _name(chosen: object) -> str:
    return type(chosen).__name__
