"""Writes the segmentations of ``predict`` as image files."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.formats import ENDINGS, ending, parts, stem
from riskft.data.io.native import native_dtype, reference_image, write_native
from riskft.data.records import Case
from riskft.distributed import gather_objects, together
from riskft.errors import InputError, first_few
from riskft.estimate.table import CaseEstimate
from riskft.files import safe_name
from riskft.training.case_estimates import CaseEstimates
from riskft.training.module import RiskModule
from riskft.training.of_trainer import data_of
from riskft.training.unfinished import Unfinished

log = logging.getLogger(__name__)


class SegmentationWriter(BasePredictionWriter):
    """Writes class indices in the scan's own geometry and format, case by case; see ``output_names``.

    Args:
        folder: Output folder, other than the scans' folder.
        overwrite: Replace existing files.
        probabilities: Also write ``<subject>_probabilities.nii.gz``, (X, Y, Z, classes) float32.
        dtype: Stored type of the segmentations: ``uint8``, or ``input`` for the type of the scan's first modality if
            it can hold the class indices.
        made_with: Fingerprint of the weights and options. With it, an interrupted prediction continues with the
            missing cases.
        estimates: Also write what is known of each case's errors.
    """

    def __init__(
        self,
        folder: str | Path,
        overwrite: bool = False,
        probabilities: bool = False,
        dtype: Literal["input", "uint8"] = "input",
        made_with: str | None = None,
        estimates: CaseEstimates | None = None,
    ) -> None:
        super().__init__(write_interval="batch")
        self.unfinished = None if made_with is None else Unfinished(Path(folder), made_with)
        self.folder = Path(folder)
        self.overwrite = overwrite
        self.probabilities = probabilities
        self.dtype = dtype
        self.estimates = estimates
        self._estimated: dict[str, CaseEstimate] = {}
        self._calibrations: set[str] = set()  # of finished cases
        self._names: dict[str, str] = {}
        self._warned = False

    def check(self, cases: Sequence[Case], keys: Mapping[str, str] | None = None) -> None:
        """Checks the output names before anything is computed, with the cases' keys once known. Opens no scan.

        Raises InputError if the folder holds scans, files would be overwritten, or two files would have the same name.
        """
        folder = self.folder.resolve()
        # a scan may be a link into the folder
        scans = {
            path for case in cases for path in case.files if folder in (path.parent.resolve(), path.resolve().parent)
        }
        if scans:
            raise InputError(
                f"{self.folder} holds the scans themselves. Choose another folder for the segmentations (--out):",
                first_few(sorted(scans)),
            )
        names = output_names(cases)
        targets = [path for subject, name in names.items() for path in self._targets(subject, name)]
        if twice := [name for name, count in Counter(path.name for path in targets).items() if count > 1]:
            raise InputError("Several cases' files would have one name. Rename the subjects:", first_few(twice))
        finished = self.finished(cases, keys)
        missing = [
            path for subject in names if subject not in finished for path in self._targets(subject, names[subject])
        ]
        existing = [str(part) for path in missing for part in parts(path) if part.exists()]
        if existing and not self.overwrite:
            raise InputError(
                f"{len(existing)} output files exist. Add --overwrite true, or choose another --out:",
                first_few(existing),
            )

    def finished(self, cases: Sequence[Case], keys: Mapping[str, str] | None = None) -> frozenset[str]:
        """Returns the subjects that an interrupted prediction has finished; see ``check`` for the arguments."""
        if self.unfinished is None:
            return frozenset()
        names = {case.subject: safe_name(case.subject) for case in cases}
        return frozenset(
            subject for subject, name in names.items() if self.unfinished.has(name, keys[subject] if keys else None)
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses to overwrite files before anything is computed, and skips finished cases."""
        data = _data(trainer)
        prepared = data.prepared("predict")
        cases, keys = [one.case for one in prepared], {one.subject: one.key for one in prepared}
        # all processes must look before the first one writes
        with together("looking for segmentations that exist"):
            self.check(cases, keys)
            data.left_out = self.finished(cases, keys)
            if self.estimates is not None and self.unfinished is not None:
                kept = {subject: self.unfinished.estimate(safe_name(subject)) for subject in data.left_out}
                self._estimated = {subject: CaseEstimate.from_json(one["case"]) for subject, one in kept.items()}
                self._calibrations = {one["calibration"] for one in kept.values()}
        gather_objects(None, "looking for segmentations that exist")
        self._names = output_names(cases)
        if data.left_out and trainer.is_global_zero:
            log.info("%d of %d segmentations are finished: going on with the others", len(data.left_out), len(cases))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrates the estimates, once the weights are loaded; those of finished cases must be calibrated alike."""
        if self.estimates is not None and isinstance(pl_module, RiskModule):
            self.estimates.start(trainer, pl_module, _data(trainer))
            if self.unfinished is not None and self._calibrations - {self.estimates.calibration}:
                raise InputError(
                    f"The interrupted prediction in {self.folder} calibrated the expected risk on other validation "
                    "cases, so the cases could not be compared. Choose another folder (--out), or remove "
                    f"{self.unfinished.notes} and add --overwrite true."
                )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the tables of the estimates, and removes the notes of finished cases: all are finished now."""
        _data(trainer).left_out = frozenset()
        parts = gather_objects(self._estimated, "writing segmentations")
        if self.estimates is not None and trainer.is_global_zero:
            # keyed, because a rank without cases of its own repeats another rank's case
            cases = {subject: found for part in parts for subject, found in part.items()}
            self.estimates.finish(list(cases.values()), _data(trainer))
        if self.unfinished is not None and trainer.is_global_zero:
            self.unfinished.end()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the files of one case."""
        data = _data(trainer)
        prepared = data.prepared_case(prediction.subject)
        case = prepared.case
        dtype = np.dtype(np.uint8) if self.dtype == "uint8" else self._scan_dtype(case, len(data.class_names))
        found = None
        if self.estimates is not None and isinstance(pl_module, RiskModule):
            # before the first file, because an interruption between files and note leaves files that are refused
            found = self.estimates.of(case, data, prediction, batch)
        write_native(self.folder / self._names[case.subject], prediction.classes.astype(dtype), case)
        if self.probabilities and prediction.probabilities is not None:
            volume = np.moveaxis(np.asarray(prediction.probabilities, dtype=np.float32), 0, -1)
            write_native(self._probabilities_path(case.subject), volume, case)
        if found is not None and self.estimates is not None:
            self._estimated[case.subject] = found[0]
            self.estimates.write(found[1], case)
        if self.unfinished is not None:
            targets = self._targets(case.subject, self._names[case.subject])
            written = [part for path in targets for part in parts(path) if part.exists()]
            estimate = None
            if found is not None and self.estimates is not None:
                estimate = {"calibration": self.estimates.calibration, "case": found[0].to_json()}
            self.unfinished.add(safe_name(case.subject), prepared.key, written, estimate)

    def _targets(self, subject: str, name: str) -> list[Path]:
        """Returns the output files of a case."""
        probabilities = [self._probabilities_path(subject)] if self.probabilities else []
        return [self.folder / name, *probabilities, *([self.estimates.path(subject)] if self.estimates else [])]

    def _scan_dtype(self, case: Case, classes: int) -> np.dtype[Any]:
        stored = native_dtype(case)
        if holds(stored, classes):
            return stored
        if not self._warned:
            self._warned = True
            log.warning(
                "%s stores %s, which cannot hold %d classes: segmentations of such scans are uint8.",
                reference_image(case),
                stored,
                classes,
            )
        return np.dtype(np.uint8)

    def _probabilities_path(self, subject: str) -> Path:
        return self.folder / f"{safe_name(subject)}_probabilities.nii.gz"


def output_names(cases: Sequence[Case]) -> dict[str, str]:
    """Returns the file names of the segmentations by subject: ``<subject>`` with the first image's ending.

    Scans of a plain folder keep their names, because ``UnlabelledReader`` names subjects after files. An ending that
    is not in ``ENDINGS`` becomes ``.nii.gz``.

    Raises:
        InputError: If two cases have the same subject.
    """
    if twice := [subject for subject, count in Counter(case.subject for case in cases).items() if count > 1]:
        raise InputError("Several cases have the same subject. Rename one of each, or drop it:", first_few(twice))
    return {case.subject: f"{_own_stem(case)}{_own_ending(case)}" for case in cases}


def holds(dtype: np.dtype[Any], classes: int) -> bool:
    """Whether a type can hold the indices of that many classes and every format can store it."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max) >= classes - 1
    return dtype in (np.dtype(np.float32), np.dtype(np.float64))


def _own_stem(case: Case) -> str:
    # valid, because a file already has this name
    return case.subject if case.subject == stem(reference_image(case)) else safe_name(case.subject)


def _own_ending(case: Case) -> str:
    own = ending(reference_image(case))
    return own if own.lower() in ENDINGS else ".nii.gz"


def _data(trainer: Trainer) -> RiskDataModule:
    data = data_of(trainer)
    if data is None:
        raise InputError("SegmentationWriter needs a riskft.RiskDataModule.")
    return data
