"""Lightning's Trainer with riskft's additions."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.data.datamodule import RiskDataModule
from riskft.data.splits import cases_to_predict
from riskft.errors import InputError
from riskft.files import file_digest, fingerprint
from riskft.run.folder import RunFolder
from riskft.source.network import options_as_text
from riskft.training.case_estimates import CaseEstimates
from riskft.training.checkpoints import find_checkpoint
from riskft.training.ending import ending_together
from riskft.training.length import is_endless
from riskft.training.module import RiskModule
from riskft.training.of_trainer import run_folder
from riskft.training.plan import RunPlan, lengths_asked_for
from riskft.training.predictions import SegmentationWriter
from riskft.training.record.check import check_checkpoint, check_filing, check_source, recorded_in
from riskft.training.record.compare import TrainerCommand
from riskft.training.risk_export import RiskExport
from riskft.training.risk_maps import RiskMapCallback
from riskft.training.whole_epochs import WholeEpochs

log = logging.getLogger(__name__)


class RiskTrainer(Trainer):
    """Trains, tests and predicts with the checkpoints of the run folder, and makes risk maps without training."""

    callbacks: list[Callback]

    def fit(  # type: ignore[override]
        self, model: LightningModule, datamodule: RiskDataModule | None = None, ckpt_path: str | None = None
    ) -> None:
        """Makes the risk maps and fine-tunes with them.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint to resume. ``last``: the latest in the run folder; if there is none, training starts
                from the beginning.
        """
        self._check_source(model, datamodule)
        self._check_length(model)
        ckpt_path = self._resumed(ckpt_path, model, datamodule)
        added = [WholeEpochs(), RunPlan()]
        self.callbacks[:0] = added
        # phase 1 first: it initializes the head, and callbacks that average the weights copy the network in their setup
        self.callbacks.sort(key=lambda callback: not isinstance(callback, RiskMapCallback))
        try:
            with ending_together(self):
                super().fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        finally:
            self.callbacks = [callback for callback in self.callbacks if callback not in added]

    def validate(  # type: ignore[override]
        self, model: LightningModule, datamodule: RiskDataModule | None = None, ckpt_path: str | None = None
    ) -> Any:
        """Scores the validation cases on the prepared grid.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint; by default the run folder's best.
        """
        with ending_together(self):
            checkpoint = self._checkpoint(ckpt_path, model, datamodule, "validate")
            return super().validate(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)

    def test(  # type: ignore[override]
        self, model: LightningModule, datamodule: RiskDataModule | None = None, ckpt_path: str | None = None
    ) -> Any:
        """Scores the test cases in the scans' own geometry and writes cases.csv into the run folder.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint; by default the run folder's best.
        """
        with ending_together(self):
            checkpoint = self._checkpoint(ckpt_path, model, datamodule, "test")
            check_filing(run_folder(self), Path(checkpoint))
            return super().test(model, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)

    def predict(  # type: ignore[override]
        self,
        model: LightningModule,
        datamodule: RiskDataModule | None = None,
        ckpt_path: str | None = None,
        out: str | None = None,
        overwrite: bool = False,
        images: str | None = None,
        probabilities: bool = False,
        dtype: Literal["input", "uint8"] = "input",
        expected_risk: bool = False,
    ) -> None:
        """Writes segmentations of the predict cases (or the test cases) in the scans' own geometry.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint; by default the run folder's best.
            out: Folder for the segmentations, by default ``predictions`` in the run folder. Files have the subject's
                name (with ``images``, the scan's) and the scan's format.
            overwrite: Replace existing segmentations. Those that an interrupted prediction with the same weights,
                options and scans has finished are always kept.
            images: A folder of scans without labels to segment instead of the data set's cases: one file per subject,
                or with several modalities ``<subject>_0000.nii.gz`` (in the order of ``data.modalities``) or
                ``<subject>_<modality>.nii.gz``.
            probabilities: Also write ``<subject>_probabilities.nii.gz``, (X, Y, Z, classes) float32.
            dtype: Stored type of the segmentations: the scan's (``input``) or ``uint8``.
            expected_risk: Also write ``<subject>_expected_risk.nii.gz``, the probability that a voxel's predicted class
                is wrong, and ``cases.csv``, the cases by expected risk with an estimate of their Dice. Both are
                calibrated on the run's validation cases.
        """
        folder = Path(out) if out else run_folder(self).predictions
        checkpoint = str(find_checkpoint(run_folder(self), ckpt_path))
        weights = weights_made_with(Path(checkpoint), self, model, datamodule)
        made_with = fingerprint({**weights, "written": [probabilities, dtype, expected_risk]})
        estimates = None
        if expected_risk:
            if datamodule is None or not isinstance(model, RiskModule):
                raise InputError("--expected_risk needs a riskft.RiskModule and a riskft.RiskDataModule.")
            if RunFolder(folder).config.is_file():
                raise InputError(
                    f"{folder} is a run folder, whose cases.csv is for the scores of the test cases. Choose another "
                    "folder (--out)."
                )
            record = recorded_in(Path(checkpoint))
            estimates = CaseEstimates(folder, datamodule, record, weights)
        writer = SegmentationWriter(folder, overwrite, probabilities, dtype, made_with, estimates)
        with ExitStack() as held:
            held.enter_context(self._as_it_was())
            if images is not None:
                if datamodule is None:
                    raise InputError("--images needs a riskft.RiskDataModule.")
                held.enter_context(datamodule.reading_folder(images))
            check_checkpoint(Path(checkpoint), model, datamodule, "predict")
            if datamodule is not None:
                writer.check(cases_to_predict(datamodule.cases()))  # before hours of preprocessing
                held.callback(setattr, datamodule, "left_out", frozenset())
            if isinstance(model, RiskModule):
                held.callback(setattr, model, "keep_probabilities", model.keep_probabilities)
                model.keep_probabilities = probabilities or expected_risk
            self.callbacks = [*self.callbacks, writer]
            held.enter_context(ending_together(self))
            super().predict(
                model,
                datamodule=datamodule,
                ckpt_path=checkpoint,
                return_predictions=False,
                weights_only=True,
            )
        log.info("Segmentations are in %s", folder)

    def riskmap(
        self,
        model: LightningModule,
        datamodule: RiskDataModule,
        out: str = "riskmaps",
        overwrite: bool = False,
    ) -> None:
        """Makes the risk maps of the training cases without training, and writes them in the scans' own geometry.

        Args:
            model: The module, with a trained source.
            datamodule: The data.
            out: Folder for ``<subject>_weight.nii.gz``, ``<subject>_hardness.nii.gz`` (nats) and
                ``risk_summary.csv``.
            overwrite: Replace existing files.
        """
        self._check_source(model, datamodule)
        with self._as_it_was():
            callbacks = self.callbacks
            if not any(isinstance(callback, RiskMapCallback) for callback in callbacks):
                callbacks = [*callbacks, RiskMapCallback()]
            # first, so that it refuses to overwrite before phase 1
            self.callbacks = [RiskExport(Path(out), overwrite), *callbacks]
            # phase 1 runs before the first step; no step follows here
            self.fit_loop.max_epochs = 0
            self.num_sanity_val_steps = 0
            with ending_together(self):
                super().fit(model, datamodule=datamodule)
        log.info("Risk maps are in %s", out)

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        """Restores callbacks and limits at the end, so that other commands can follow."""
        callbacks = list(self.callbacks)
        limits = self.fit_loop.min_epochs, self.fit_loop.max_epochs
        checked = self.num_sanity_val_steps
        try:
            yield
        finally:
            self.callbacks = callbacks
            self.fit_loop.min_epochs, self.fit_loop.max_epochs = limits
            self.num_sanity_val_steps = checked

    def _check_length(self, model: LightningModule) -> None:
        """Rejects options that are fractions of the run if the run has no set end, before data are prepared."""
        asking = [str(name) for name in lengths_asked_for(model, self.callbacks)]
        if asking and is_endless(self):
            raise InputError(
                "The run has no set number of steps, and these depend on it. Set trainer.max_epochs or "
                "trainer.max_steps, or give them whole numbers:",
                asking,
            )

    def _check_source(self, model: LightningModule, datamodule: RiskDataModule | None) -> None:
        mapped = any(isinstance(callback, RiskMapCallback) for callback in self.callbacks)
        if isinstance(model, RiskModule):
            record = model.check_source(whole=mapped)
            if datamodule is not None and record is not None:
                check_source(record, model, datamodule)

    def _checkpoint(
        self, path: str | None, model: LightningModule, datamodule: RiskDataModule | None, command: TrainerCommand
    ) -> str:
        """Returns the checkpoint to use. Raises if there is none or it contradicts the command."""
        found = find_checkpoint(run_folder(self), path)
        check_checkpoint(found, model, datamodule, command)
        return str(found)

    def _resumed(self, path: str | None, model: LightningModule, datamodule: RiskDataModule | None) -> str | None:
        """Returns the checkpoint to resume, or None to start from the beginning: there may be no ``last`` yet."""
        if path is None or (path == "last" and not run_folder(self).last.is_file()):
            return None
        return self._checkpoint(path, model, datamodule, "fit")


def weights_made_with(
    checkpoint: Path, trainer: Trainer, model: LightningModule, data: RiskDataModule | None
) -> dict[str, Any]:
    """Returns what predictions with a checkpoint depend on, for a fingerprint."""
    return {
        "checkpoint": file_digest(checkpoint),
        "inference": options_as_text(model.inferer) if isinstance(model, RiskModule) else None,
        "classes": data.class_names if data is not None else None,
        "precision": trainer.precision,
    }
