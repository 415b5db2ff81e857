"""Private names of other libraries that riskft uses, and their warnings that it hides.

Each has a test in `tests/test_compat.py` that says what a new version changed and what depends on it. Private methods
that a class of riskft overrides stay in the class; the tests list them too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # only for annotations: commands without a trainer import this file too
    from argparse import ArgumentParser
    from subprocess import Popen

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import WeightAveraging
    from lightning.pytorch.strategies import DDPStrategy
    from torch import Tensor
    from torch.utils.data import DataLoader

#: Hidden warnings: a regular expression for the start of each, and why it does not apply.
HIDDEN_WARNINGS = {
    r"The '\w+' does not have many workers": "the patch queue has its own workers, and volumes are read one by one",
    r"It is recommended to use `self\.log\(.*sync_dist=True": "scores are gathered before they are logged",
    r"The number of training batches .* is smaller than the logging interval": "few-shot runs have short epochs",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint": "test and predict need none",
    r"Checkpoint directory .* exists and is not empty": "a resumed run finds its own checkpoints",
    r".*`always_return_as_numpy` has been deprecated": "MONAI 1.5 and 1.6 pass it themselves, to compute HD95",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated": "Lightning 2.6 calls it, in each step",
}

T = TypeVar("T")

# -- jsonargparse ------------------------------------------------------------------------------------------------------


def lazy_instance(class_type: type[T]) -> T:
    """Returns a default that is an object: a lazy instance of jsonargparse, whose options a config can set one by one.

    A thread makes it: jsonargparse reads the source of all frames on the stack, which takes 0.2 to 0.5 s in an import.
    """
    import jsonargparse

    def make() -> T:
        return jsonargparse.lazy_instance(class_type)  # type: ignore[attr-defined]

    with ThreadPoolExecutor(1) as empty_stack:
        return empty_stack.submit(make).result()


def made(item: T) -> T:
    """Returns the object that a lazy default of jsonargparse stands for; the default itself has no attributes yet."""
    if not hasattr(item, "lazy_get_init_args"):
        return item
    result: T = type(item).__bases__[-1]()
    return result


def option_names(parser: ArgumentParser) -> set[str]:
    """Returns all names of a parser's options, with dashes."""
    return {name for action in parser._actions for name in action.option_strings}


# -- Lightning ---------------------------------------------------------------------------------------------------------

BUILT_BY = "_instantiator"  #: The hyperparameter by which Lightning marks a module that its command line built.


def attached_trainer(module: LightningModule) -> Trainer | None:
    """Returns a module's trainer, or None if it has none (`module.trainer` raises)."""
    return module._trainer


def handle_sigterm(trainer: Trainer, handler: Callable[[int, FrameType | None], None]) -> None:
    """Sets what a trainer does on SIGTERM; call it before the trainer registers its handlers."""
    trainer._signal_connector._sigterm_notifier_fn = handler  # type: ignore[method-assign,assignment]


def note_sigterm(trainer: Trainer) -> None:
    """Makes the loops of a trainer stop at the next batch (`trainer.received_sigterm` cannot be set)."""
    trainer._signal_connector.received_sigterm = True


def launched_processes(trainer: Trainer) -> Sequence[Popen[bytes]]:
    """Returns the processes that this process started for other devices."""
    processes: Sequence[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    return processes


def start_next_epoch(trainer: Trainer) -> None:
    """Makes a trainer that resumes from the end of an epoch go on with the next one; call it in ``on_train_start``.

    With ``max_steps`` Lightning takes such a checkpoint for one from inside the epoch, ends that epoch a second time,
    and skips the one after.
    """
    from lightning.pytorch.loops.loop import _Loop

    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end and loop.epoch_loop.batch_progress.is_last_batch:
        _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]  # the loop's own setter ignores False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        loop.epoch_progress.increment_completed()


def finds_unused_parameters(strategy: DDPStrategy) -> bool:
    """Whether DDP searches for parameters without a gradient."""
    return bool(strategy._ddp_kwargs.get("find_unused_parameters", False))


def averaging_function(callback: WeightAveraging) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Returns a callback's averaging function of (mean, weights, updates so far)."""
    function: Callable[[Tensor, Tensor, int], Tensor] = callback._kwargs["avg_fn"]
    return function


# -- torch -------------------------------------------------------------------------------------------------------------

#: Parameters of the old `torch.nn.utils.weight_norm` under the names of `torch.nn.utils.parametrizations`.
WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
#: The same for `spectral_norm`.
SPECTRAL_NORM = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}


def group_timeout(device: torch.device) -> timedelta:
    """Returns the timeout of the process group; torch's default if it is not known."""
    import torch.distributed as dist

    try:
        timeout = dist.group.WORLD._get_backend(device).options._timeout  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):
        timeout = dist.default_pg_timeout
    return timedelta(seconds=timeout.total_seconds())


def softmax_axis(node: Any, dimensions: int) -> int:
    """Returns the axis, 0 or more, of a ``SoftmaxBackward0`` whose result has that many dimensions."""
    axis = int(node._saved_dim)
    if axis >= 2**63:  # a negative axis is stored as an unsigned number
        axis -= 2**64
    return axis % dimensions


def assert_on_device(condition: Tensor, message: str) -> None:
    """Raises RuntimeError unless a scalar tensor is true; on an accelerator without waiting for it."""
    import torch

    torch._assert_async(condition, message)


def workers_of(loader: DataLoader[Any]) -> Any:
    """Returns the iterator that holds a loader's persistent workers; None if there are none."""
    return loader._iterator


def set_workers(loader: DataLoader[Any], iterator: Any) -> None:
    """Sets this iterator; Lightning sets None after it has ended the workers."""
    loader._iterator = iterator


# -- W&B ---------------------------------------------------------------------------------------------------------------


def import_wandb() -> None:
    """Imports W&B, including a part that every run imports when it starts."""
    for name in ("wandb", "wandb.sdk.launch.inputs.internal"):
        with suppress(ImportError):
            import_module(name)


# -- warnings ----------------------------------------------------------------------------------------------------------


def hide_warnings() -> None:
    """Hides the warnings of `HIDDEN_WARNINGS` in this process."""
    for message in HIDDEN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
