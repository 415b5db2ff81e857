"""Weight averaging over the last part of a run."""

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
    """Validates and saves a moving average of the weights whose span scales with the run.

    Each step t updates mean <- mean + (w - mean) / min(t, n): the plain mean of the first n steps, then an exponential
    moving average with decay 1 - 1/n. Lightning's ``EMAWeightAveraging`` has a fixed decay (0.999 by default); after
    300 steps, the initial weights still make up 74 % of its average.

    Args:
        span: n, in steps or as a fraction of the run's steps: 0.1 averages over the last tenth of the run.
    """

    def __init__(self, span: int | float = 0.1) -> None:
        check_length("span", span, least=1)
        self.span = span
        self.steps: int | None = None
        super().__init__(avg_fn=self._averaged)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Converts the span to steps."""
        self.steps = counted(self.span, run_length(trainer).steps, least=1)
        if is_first_rank():
            log.info("The weights that are validated and kept are averaged over about %d steps.", self.steps)

    def _averaged(self, mean: Tensor, current: Tensor, averaged: Tensor) -> Tensor:
        """Returns the new average of one parameter; ``averaged`` counts the steps already in ``mean``."""
        assert self.steps is not None
        return mean + (current - mean) / torch.clamp(averaged + 1, max=self.steps)


def share_of_start(callback: Any, steps: float) -> float | None:
    """Returns the initial weights' share of an averaging callback's final average; None if it is unknown."""
    if isinstance(callback, AveragedWeights):
        span = counted(callback.span, steps, least=1)
        return 1 / steps if steps <= span else (1 - 1 / span) ** (steps - span) / span
    if isinstance(callback, EMAWeightAveraging):
        # the decay is not an attribute, so probe the function
        decay = float(averaging_function(callback)(torch.ones(()), torch.zeros(()), 1))
        updates = (steps - (callback.update_starting_at_step or 0)) // max(1, callback.update_every_n_steps)
        return float(decay ** max(0, updates - 1))
    return None
