"""Learning rate schedules that end with the run."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from riskft.distributed import is_first_rank
from riskft.errors import InputError

log = logging.getLogger(__name__)
_LENGTHS = ("total_iters", "T_max", "total_steps")


class Shared:
    """Wraps a function that copies of the module share.

    Weight averaging copies the module, and functions that jsonargparse makes cannot be copied.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self.function(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        """Returns itself."""
        return self


def schedule_over(schedule: Callable[[Optimizer, int], LRScheduler], optimizer: Optimizer, steps: float) -> LRScheduler:
    """Returns a schedule, called with the optimizer and the number of steps, that ends with the run.

    Raises InputError if the run has no known length, or the schedule's second argument is not the number of steps.
    """
    if not math.isfinite(steps):
        raise InputError("model.schedule needs a run of known length: set trainer.max_epochs or trainer.max_steps.")
    problem = ""
    try:
        made = schedule(optimizer, int(steps))
    except (TypeError, ValueError) as error:
        problem = f" ({error})"
    else:
        if schedule_length(made) == int(steps):
            return made
    raise InputError(
        "model.schedule must take the number of steps as its second argument, as torch.optim.lr_scheduler.PolynomialLR "
        f"and CosineAnnealingLR do{problem}."
    )


def say_other_length(configs: Iterable[Any], steps: float) -> None:
    """Warns if a schedule, for example of a resumed checkpoint, does not end with the run's steps."""
    for config in configs:
        length = schedule_length(config.scheduler)
        if length is not None and length != steps and is_first_rank():
            log.warning(
                "The resumed schedule ends after %s steps, the run after %s: the learning rate stays as the checkpoint "
                "has it.",
                length,
                f"{steps:.0f}" if math.isfinite(steps) else "no set number",
            )


def schedule_length(schedule: object) -> int | None:
    """Returns the number of steps that a schedule was made for, or None if it is unknown."""
    lengths = [getattr(schedule, name) for name in _LENGTHS if hasattr(schedule, name)]
    return int(lengths[0]) if lengths else None
