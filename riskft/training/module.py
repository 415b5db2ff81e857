"""Phase 2: the target network and its training."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from riskft.compat import attached_trainer, lazy_instance
from riskft.data.patches.batch import PatchBatch
from riskft.errors import InputError
from riskft.losses.weighted import Loss, RiskWeightedLoss
from riskft.run.record import Record
from riskft.source.activation import freeze_unused, probability_check, readings
from riskft.source.classes import with_classes
from riskft.source.fresh import fresh_keys
from riskft.source.input_channels import with_input_channels
from riskft.source.load import load_source, say_not_loaded
from riskft.source.network import SourceNetwork
from riskft.source.parametrizations import plain
from riskft.source.source import Source
from riskft.source.transfer import AdaptationReport, HeadInit, start_network
from riskft.training.checkpoints import misfits_named, plain_options, with_own
from riskft.training.length import run_length
from riskft.training.of_trainer import data_of
from riskft.training.optimizer import parameter_groups, trial_groups
from riskft.training.record_of import record_of
from riskft.training.schedule import Shared, say_other_length, schedule_over
from riskft.training.scores import keep_adaptation
from riskft.training.segmentation import SegmentationModule, window_size
from riskft.training.trials import try_inferer, try_training


class RiskModule(SegmentationModule):
    """Fine-tunes a source network on the target task with the map-weighted loss.

    The target network is the source network with a new head of |Y| channels. Its first convolution is adapted if the
    input channels differ. Batches without a risk map (plain fine-tuning) run the same code with weight 1.

    Args:
        source: Architecture and checkpoint to start from. With ``load: none`` the network is trained from scratch.
        class_names: Target classes, background first. Linked from ``data``.
        in_channels: Target channels. Linked from ``data``.
        regions: Unions of class indices by name, scored instead of the single classes. Linked from ``data``.
        loss: The training loss.
        inferer: Segments whole volumes. Its window should be as large as the training patch. null: MONAI's
            ``SlidingWindowInferer`` with a window of 64 voxels, an overlap of 0.5 and Gaussian blending.
        optimizer: Called with the parameter groups ``backbone`` and ``head``.
        schedule: Learning rate schedule, called with the optimizer and the total number of steps and advanced after
            every step. Example: ``torch.optim.lr_scheduler.PolynomialLR`` with ``power: 0.9``.
        head_init: ``leep`` mixes the rows of the source head by P(z|y) (needs phase 1), ``copy`` copies the source
            head, ``random`` ignores it. ``auto`` is ``copy`` if source and target classes have the same names, else
            ``leep``; ``random`` if ``source.load`` is ``encoder``.
        head_lr_factor: The head's learning rate relative to the backbone's.
        channels_last: Store weights and patches in channels-last memory order (faster convolutions on GPUs).
        compile: Compile the network with ``torch.compile``.
        validation_surface: Compute HD95 in every validation too, not only in ``test``.
    """

    def __init__(
        self,
        source: Source,
        class_names: list[str],
        in_channels: int,
        regions: dict[str, list[int]] | None = None,
        loss: Loss = lazy_instance(RiskWeightedLoss),  # noqa: B008
        inferer: Inferer | None = None,
        optimizer: Callable[[list[Any]], Optimizer] = lambda groups: torch.optim.AdamW(
            groups, lr=5e-4, weight_decay=1e-4
        ),
        schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
        head_init: HeadInit = "auto",
        head_lr_factor: float = 1.0,
        channels_last: bool = False,
        compile: bool = False,
        validation_surface: bool = False,
    ) -> None:
        inferer = inferer or SlidingWindowInferer([64, 64, 64], sw_batch_size=4, overlap=0.5, mode="gaussian")
        super().__init__(class_names, regions or {}, inferer, channels_last, validation_surface)
        self.save_hyperparameters()
        if head_lr_factor <= 0:
            raise InputError(f"model.head_lr_factor is {head_lr_factor}, expected a positive number.")
        self.in_channels = in_channels
        self.loss = loss
        self.head_init = head_init
        self.head_lr_factor = head_lr_factor
        self._compile = compile
        self._optimizer = Shared(optimizer)
        self._schedule = None if schedule is None else Shared(schedule)
        size = window_size(inferer)
        self.source = source
        self.source_digest: str | None = None
        self._checked_source: SourceNetwork | None = None  # neither trained nor saved
        network, _ = with_input_channels(plain(source.architecture()), in_channels, size, source.first_convolution)
        self.network, self.head = with_classes(network, len(self.class_names), size, source.head)
        if source.trained and source.load == "encoder" and head_init in ("leep", "copy"):
            raise InputError(
                f"model.head_init is {head_init}, but model.source.load is encoder: the source's head does not fit a "
                "decoder that starts at random. Set model.head_init to auto or random."
            )
        self._fresh = fresh_keys(self.network, size, source.load) if source.trained else frozenset()
        self._read = readings(self.network, size, source.output)
        self._check = probability_check(self.network, self._read, source.output)
        self.adaptation: AdaptationReport | None = None
        self.options: dict[str, Any] = {}  # from its config, if it has one; see ``Record``
        self.record: Record | None = None

    def try_out(self) -> None:
        """Tries the optimizer, the schedule and the inferers on tiny inputs, so that they fail before phase 1.

        Raises:
            InputError: If one of them fails.
        """
        try_training(self._optimizer, self._schedule)
        for option, inferer in (("model.inferer", self.inferer), ("model.source.inferer", self.source.inferer)):
            if inferer is not None:
                try_inferer(option, inferer, self.in_channels, window_size(inferer))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the weights of a checkpoint.

        Raises:
            InputError: If they do not fit this network, or the checkpoint lacks the state of the loss.
        """
        with misfits_named():
            return super().load_state_dict(state_dict, strict, assign)

    @property
    def has_schedule(self) -> bool:
        """Whether the learning rate follows a schedule."""
        return self._schedule is not None

    # -- start -------------------------------------------------------------------------------------------------------

    def check_source(self, whole: bool) -> Record | None:
        """Loads the source's weights before hours of preprocessing, to find faults early, and keeps them for training.

        Args:
            whole: See ``load_source``.

        Returns:
            The source's record, if riskft trained the source and it is loaded.

        Raises:
            InputError: See ``load_source``.
        """
        if whole or self.source.load != "none":
            self._checked_source = self.load_source(whole)
            return self._checked_source.record
        say_not_loaded(self.source)
        return None

    def load_source(self, whole: bool = True) -> SourceNetwork:
        """Returns the frozen source network for this target; see ``riskft.source.load.load_source``.

        Args:
            whole: Require all weights in the checkpoint, as phase 1 does.

        Raises:
            InputError: If there is no checkpoint, ``load`` is ``none``, or the checkpoint does not fit.
        """
        loaded, self._checked_source = self._checked_source, None
        if loaded is None:
            where = self.in_channels, window_size(self.inferer), self.inferer
            loaded = load_source(self.source, *where, channels_last=self.channels_last, whole=whole)
        self.source_digest = loaded.digest
        return loaded

    def start_from(self, source: SourceNetwork, joint: Tensor | None, knowledge: float = 0.0) -> None:
        """Sets the target network's weights from the source; see ``start_network``.

        Args:
            source: The source network.
            joint: P(y, z) from phase 1, (Y, Z), of any scale. None without phase 1.
            knowledge: From phase 1, the fraction of the labels' entropy that the source explains.

        Raises:
            InputError: If the head or the loss needs phase 1 and it did not run.
        """
        if joint is not None:
            self.loss.take_phase_1(joint, knowledge)
        elif self.loss.needs_eep:
            raise InputError("model.loss needs phase 1: add riskft.RiskMapCallback to trainer.callbacks.")
        self.adaptation = start_network(
            self.network, self.head, source, joint, self.class_names, self.head_init, self._fresh
        )

    def setup(self, stage: str) -> None:
        """Initializes the network from the source if phase 1 has not, and applies the options for speed."""
        if stage == "fit" and self.source.trained and self.adaptation is None:
            self.start_from(self.load_source(whole=False), None)
        if stage == "fit":
            freeze_unused(self.network, self._read)
            self.record = record_of(self, data_of(attached_trainer(self)))
        if self.adaptation is not None and self.trainer.is_global_zero:
            keep_adaptation(self.trainer, self.adaptation)
        if self.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if self._compile:
            self.network.compile()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the record that later fine-tuning reads, and keeps the file loadable without unpickling objects."""
        checkpoint["riskft"] = (self.record or record_of(self, None)).plain()
        checkpoint["hyper_parameters"] = plain_options(checkpoint.get("hyper_parameters", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Ignores the saved state of the loss outside ``fit``: the command may use another loss."""
        if attached_trainer(self) is None or self.trainer.state.fn == "fit":
            return
        checkpoint["state_dict"] = with_own("loss.", checkpoint["state_dict"], self.state_dict())

    # -- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Returns the optimizer of backbone and head, and the schedule if there is one."""
        optimizer = self._optimizer(parameter_groups(self.network, self.head))
        optimizer.param_groups[1]["lr"] *= self.head_lr_factor
        if self._schedule is None:
            return optimizer
        scheduler = schedule_over(self._schedule, optimizer, run_length(self.trainer).steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def trial_optimizer(self) -> Optimizer:
        """Returns an optimizer like the one that training uses, over dummy parameters."""
        optimizer: Optimizer = self._optimizer(trial_groups())
        return optimizer

    def on_train_start(self) -> None:
        """Tells the loss how long the run is, and warns if a resumed schedule has another length."""
        length = run_length(self.trainer)
        self.loss.runs_for(length.batches)
        say_other_length(self.trainer.lr_scheduler_configs, length.steps)

    def logits(self, patch: Tensor) -> Tensor:
        """Returns the logits (B, Y, *spatial) of patches (B, C, *spatial) in the network's memory order."""
        return self._read(self.network, patch)[0]

    def training_step(self, batch: PatchBatch, batch_idx: int) -> Tensor:
        """Returns and logs the loss of a batch of patches."""
        outputs = self._read(self.network, self.ordered(batch.image))
        self._check.patch(outputs[0])
        logits = outputs if len(outputs) > 1 else outputs[0]
        loss: Tensor = self.loss(logits, batch.label, batch.weight, batch.foreground_fraction, batch.eep)
        self.log("train/loss", loss, batch_size=len(batch.label))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: PatchBatch, batch_idx: int) -> None:
        """Shows the loss as often as it is logged; ``prog_bar=True`` would wait for the GPU in every step."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        logged = self.trainer.callback_metrics.get("train/loss")  # a subclass may log something else
        if every and logged is not None and self.trainer.global_step % every == 0:
            self.trainer.progress_bar_metrics["train/loss"] = float(logged)

    def on_validation_start(self) -> None:
        """Makes the counts of the loss equal on all processes, because a checkpoint may follow."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.loss.settle()

    def on_train_epoch_end(self) -> None:
        """Makes the counts of the loss equal on all processes, because a checkpoint may follow."""
        self.loss.settle()
