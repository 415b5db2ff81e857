"""Averaging the weights over the last part of a run."""

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor

from riskft.compat import averaging_function
from riskft.distributed import is_first_rank
from riskft.losses.length import check_length, counted
from riskft.training.length import run_length

log = logging.getLogger(__name__)


class AveragedWeights(WeightAveraging):
    """Validates and keeps an exponential moving average of the weights whose memory fits the run.

    After every step mean <- mean + (w - mean) / min(t, n), with t the steps so far: the plain mean of the first n steps
    and then a moving average with decay 1 - 1/n. Lightning's own has a fixed decay, 0.999 by default, which leaves 74 %
    of the first weights in the average of a run of 300 steps.

    Args:
        span: The n above, in steps, or as a fraction of the run's steps: 0.1 looks back on a tenth of the run.
    """

    def __init__(self, span: int | float = 0.1) -> None:
        check_length("span", span, least=1)
        self.span = span
        self.steps: int | None = None
        super().__init__(avg_fn=self._averaged)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settles the span."""
        self.steps = counted(self.span, run_length(trainer).steps, least=1)
        if is_first_rank():
            log.info("The weights that are validated and kept are averaged over about %d steps.", self.steps)

    def _averaged(self, mean: Tensor, current: Tensor, averaged: Tensor) -> Tensor:
        """Returns the new average of one parameter, given how many steps are in the one before."""
        assert self.steps is not None
        return mean + (current - mean) / torch.clamp(averaged + 1, max=self.steps)


def share_of_start(callback: Any, steps: float) -> float | None:
    """Returns which part of an average is still the first weights' at the end; None if that is not known.

    Args:
        callback: A callback that averages, this one or Lightning's.
        steps: Steps of the run.
    """
    if isinstance(callback, AveragedWeights):
        span = counted(callback.span, steps, least=1)
        return 1 / steps if steps <= span else (1 - 1 / span) ** (steps - span) / span
    if isinstance(callback, EMAWeightAveraging):
        # asked of the function, which does not tell its decay
        decay = float(averaging_function(callback)(torch.ones(()), torch.zeros(()), 1))
        updates = (steps - (callback.update_starting_at_step or 0)) // max(1, callback.update_every_n_steps)
        return float(decay ** max(0, updates - 1))
    return None
