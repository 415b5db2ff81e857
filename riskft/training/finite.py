"""A guard against NaN and infinite losses."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from riskft.data.patches.batch import PatchBatch
from riskft.distributed import together
from riskft.errors import InputError, first_few


class FiniteLossGuard(Callback):
    """Stops the training at a NaN or infinite loss, before a checkpoint is written.

    On a CPU, each loss is checked before the backward pass. On a GPU, a check must wait for the device, so the first
    bad step is recorded there and read every ``every_n_steps``, before each validation and at the end of each epoch.
    The last two also check the weights. By then the weights in memory may be corrupt, but no checkpoint is. The
    command line adds this callback if your configs do not.

    Args:
        every_n_steps: Steps between checks on a GPU; null for ``trainer.log_every_n_steps``, 0 to skip these checks.
        enabled: Set to false to turn the guard off.
    """

    def __init__(self, every_n_steps: int | None = None, enabled: bool = True) -> None:
        super().__init__()
        if every_n_steps is not None and every_n_steps < 0:
            raise InputError(f"riskft.FiniteLossGuard: every_n_steps is {every_n_steps}, expected 0 or more.")
        self.every_n_steps = every_n_steps
        self.enabled = enabled
        self._subjects: list[tuple[int, Sequence[str]]] = []
        self._bad: Tensor | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Records which subjects the patches come from."""
        if self.enabled:
            self._subjects.append((trainer.global_step, batch.subjects if isinstance(batch, PatchBatch) else ()))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Records the first batch with a bad loss since the last check."""
        if not self.enabled:
            return
        bad = ~torch.isfinite(loss.detach()).all()
        index = torch.where(bad, len(self._subjects) - 1, -1)
        self._bad = index if self._bad is None else torch.where(self._bad >= 0, self._bad, index)
        if loss.device.type == "cpu":
            self._look()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the losses every ``every_n_steps``."""
        every = trainer.log_every_n_steps if self.every_n_steps is None else self.every_n_steps  # type: ignore[attr-defined]
        if self.enabled and every and (batch_idx + 1) % every == 0:
            self._look()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before the weights are scored and a best checkpoint is written."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look_together(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks before the latest checkpoint is written: Lightning calls checkpoint callbacks last."""
        self._look_together(pl_module)

    def _look_together(self, module: LightningModule) -> None:
        if not self.enabled:
            return
        with together("looking for losses that are not finite"):
            self._look()
        # after the losses: a bad loss in one process corrupts the weights of all
        with together("looking for weights that are not finite"):
            finite = [torch.isfinite(value).all() for value in module.parameters()]
            if finite and not torch.stack(finite).all():
                names = [name for name, value in module.named_parameters() if not torch.isfinite(value).all()]
                raise InputError(
                    _advice("Weights have become NaN or infinite, though no loss was"), first_few(names, 5)
                )

    def _look(self) -> None:
        seen, self._subjects = self._subjects, []
        found, self._bad = self._bad, None
        index = -1 if found is None else int(found)
        if index >= 0:
            step, names = seen[index]
            patches = [f"patch of {name}" for name in names]
            raise InputError(_advice(f"The loss is NaN or infinite at step {step}"), patches)


def _advice(what: str) -> str:
    return (
        f"{what}. No checkpoint of it is written. Look at these scans and labels, lower model.optimizer.init_args.lr, "
        "or set trainer.gradient_clip_val; --ckpt_path last goes on from the epoch before."
    )
