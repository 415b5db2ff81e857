"""The plan of a run, logged before its first step: number of steps, expected time, and what it is too short for."""

import copy
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from riskft.data.datamodule import RiskDataModule
from riskft.data.patches.queue import PatchLoader
from riskft.losses.length import is_part
from riskft.source.reading import tensors_in
from riskft.training.average import AveragedWeights, share_of_start
from riskft.training.freeze import BackboneFreeze
from riskft.training.length import RunLength, run_length
from riskft.training.module import RiskModule
from riskft.training.of_trainer import data_of
from riskft.training.pause import PauseAt

log = logging.getLogger(__name__)
MOST_OF_START = 0.05


class RunPlan(Callback):
    """Logs the plan of the run, its expected time and its problems before the first step.

    The expected time follows from one batch, measured on a copy of the network, and from Lightning's sanity check of
    the validation. After the first epoch it is logged again, from measured times. Only the first process logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._length: RunLength | None = None
        self._said_again = False
        self._epoch_start = self._validation_start = 0.0
        self._cases = 0
        self._validation = 0.0  # of all cases, in s
        self._validated = 0.0  # in this epoch, in s

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the state of an earlier fit."""
        self._length, self._said_again, self._validation = None, False, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of a validation."""
        self._validation_start, self._cases = time.perf_counter(), 0

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        """Counts cases."""
        self._cases += 1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock. The sanity check runs a few cases only, so its time is scaled up to all cases."""
        took = time.perf_counter() - self._validation_start
        self._validated += took
        data = data_of(trainer)
        if data is not None and self._cases:
            cases = math.ceil(len(data.prepared("val")) / trainer.world_size)
            self._validation = took * max(1.0, cases / self._cases)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the plan before the first epoch."""
        if self._length is None:
            self._length = run_length(trainer)
            if trainer.is_global_zero:
                log.info("%s", described(trainer, self._length))
                for problem in problems(trainer, self._length):
                    log.warning("%s", problem)
                self._expect(trainer, pl_module, self._length)
        self._epoch_start, self._validated = time.perf_counter(), 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the remaining time after the first epoch."""
        length = self._length
        if self._said_again or length is None or not trainer.is_global_zero:
            return
        self._said_again = True
        training = time.perf_counter() - self._epoch_start - self._validated
        left = length.batches / length.epoch_batches - trainer.current_epoch - 1
        if math.isfinite(left) and left > 0:
            rest = left * training + validations(trainer, length, done=trainer.current_epoch + 1) * self._validation
            log.info("The first epoch took %s; the rest is expected to take %s.", in_words(training), in_words(rest))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if there was no step to make."""
        if self._length is None and trainer.is_global_zero and not trainer.should_stop:
            log.warning(
                "Nothing was trained: the run has made %d steps already or has none to make (trainer.max_epochs: %s, "
                "trainer.max_steps: %s, trainer.limit_train_batches: %s).",
                *(trainer.global_step, trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches),
            )

    def _expect(self, trainer: Trainer, module: LightningModule, length: RunLength) -> None:
        data = data_of(trainer)
        if not isinstance(module, RiskModule) or data is None:
            return
        try:
            batch = time_batch(trainer, module, data)
        except Exception as error:
            log.info("The expected time follows after the first epoch (a batch could not be timed: %s).", error)
            return
        if batch is None:
            return
        left = length.batches - trainer.current_epoch * length.epoch_batches
        if not math.isfinite(left):
            log.info("An epoch is expected to take %s.", in_words(batch * length.epoch_batches))
            return
        count = validations(trainer, length, done=trainer.current_epoch)
        checked = f" and {count} validations of {in_words(self._validation)}" if count and self._validation else ""
        log.info(
            "Expected time: about %s (%.2g s a batch%s), measured on one batch.",
            *(in_words(left * batch + count * self._validation), batch, checked),
        )


def described(trainer: Trainer, length: RunLength) -> str:
    """Returns the plan in one line: steps, epochs, patches and validations."""
    data = data_of(trainer)
    patches = ""
    if data is not None:
        size = " x ".join(map(str, data.patch_size))
        ranks = f" on each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
        patches = f", each of {data.batch_size} patches of {size} voxels{ranks}"
    if not math.isfinite(length.steps):
        return f"The run has no set number of steps: {length.epoch_batches:.0f} batches an epoch{patches}."
    batches = f" ({length.batches:.0f} batches)" if length.batches != length.steps else ""
    done = f", of which {trainer.global_step} are done" if trainer.global_step else ""
    count = validations(trainer, length)
    checked = f"{count} validation{'s' if count != 1 else ''}" if count else "no validation"
    epochs = f"{length.epochs:.0f} epochs of {length.epoch_batches:.0f} batches"
    return f"The run: {length.steps:.0f} steps{batches}{done}, {epochs}{patches}; {checked}."


def validations(trainer: Trainer, length: RunLength, done: int = 0) -> int:
    """Returns how often a run validates, according to its options, after the finished (``done``) epochs."""
    if not trainer.enable_validation or not trainer.val_check_batch or not math.isfinite(length.batches):
        return 0
    every, batches = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if every is None:
        return int(length.batches // batches) - int(done * length.epoch_batches // batches)
    return int(length.whole_epochs // every - done // every) * int(length.epoch_batches // batches)


def problems(trainer: Trainer, length: RunLength) -> list[str]:
    """Returns a message for each thing that the run is too short for."""
    found: list[str] = []
    data = data_of(trainer)
    if not math.isfinite(length.steps):
        return found
    steps = f"the run has {length.steps:.0f} steps in {length.epochs:.0f} epochs"
    if trainer.max_steps > length.steps:
        found.append(
            f"trainer.max_steps is {trainer.max_steps}, but {steps}: trainer.max_epochs ({trainer.max_epochs}) ends it "
            "earlier. Set trainer.max_epochs: -1 to make all steps."
        )
    validated = data is None or bool(data.prepared("val"))
    quick = getattr(trainer, "fast_dev_run", False)
    by_time = trainer.val_check_batch is None and trainer.enable_validation
    if validated and not by_time and not quick and not validations(trainer, length):
        found.append(
            f"Nothing is validated, and there will be no best.ckpt: {steps}, and trainer.check_val_every_n_epoch is "
            f"{trainer.check_val_every_n_epoch}, trainer.limit_val_batches {trainer.limit_val_batches}. `test` will "
            "take last.ckpt."
        )
    logged: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if trainer.loggers and logged > length.steps:
        found.append(f"trainer.log_every_n_steps is {logged}, but {steps}: no training loss is logged.")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        share = share_of_start(callback, length.steps)
        if share is not None and share > MOST_OF_START and length.steps > 1:
            found.append(
                f"{type(callback).__name__} still holds {share:.0%} of the first weights at the end: {steps}. Use "
                "riskft.AveragedWeights with span: 0.1, which fits the run."
            )
    return found


def lengths_asked_for(module: LightningModule, callbacks: Sequence[Callback]) -> list[str]:
    """Returns the names of the options that are fractions of the run."""
    found = []
    if isinstance(module, RiskModule):
        found += ["model.schedule"] if module.has_schedule else []
        found += ["model.loss"] if module.loss.needs_length else []
    for callback in callbacks:
        if isinstance(callback, AveragedWeights) and is_part(callback.span):
            found.append("riskft.AveragedWeights: span")
        if isinstance(callback, BackboneFreeze) and is_part(callback.unfreeze_at_epoch):
            found.append("riskft.BackboneFreeze: unfreeze_at_epoch")
        if isinstance(callback, PauseAt) and callback.at is not None and is_part(callback.at):
            found.append("riskft.PauseAt: at")
    return found


def time_batch(trainer: Trainer, module: RiskModule, data: RiskDataModule) -> float | None:
    """Returns the time of a training batch in s, or None if the trainer has no ``PatchLoader``.

    The time covers loading, augmenting and cropping, and a forward and a backward pass of a copy of the network, but
    neither loss nor optimizer. The state of the run and of its random generators does not change.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, PatchLoader):
        return None
    with isolate_rng():
        start = time.perf_counter()
        patches = loader.source.patches(next(loader.visits()))
        load = (time.perf_counter() - start) * data.batch_size / len(patches.image)
        compute = _time_passes(trainer, module, data)
    # worker processes load while this one trains
    return max(load / data.num_workers, compute) if data.num_workers else load + compute


def _time_passes(trainer: Trainer, module: RiskModule, data: RiskDataModule) -> float:
    network = copy.deepcopy(module.network).train()
    shape = (data.batch_size, module.in_channels, *data.patch_size)
    batch = torch.rand(shape, device=module.device)
    seconds = 0.0
    # on a GPU the first pass also chooses algorithms
    for _ in range(1 if module.device.type == "cpu" else 2):
        start = _now(module.device)
        with torch.enable_grad(), trainer.precision_plugin.train_step_context():
            outputs = tensors_in(network(batch)).values()
            loss = torch.stack([output.float().mean() for output in outputs if output.requires_grad]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = _now(module.device) - start
    return seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_words(seconds: float) -> str:
    """Returns a duration in a readable form: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
