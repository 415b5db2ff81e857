"""Estimates the errors of predicted cases: an expected risk for each voxel, and an expected Dice for each case."""

import logging
from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from riskft.data.datamodule import RiskDataModule
from riskft.data.io.colour_tables import itk_snap_labels, slicer_labels
from riskft.data.io.native import native_grid, reference_image
from riskft.data.io.volumes import write_nifti
from riskft.data.patches.batch import VolumeBatch
from riskft.data.prepare.cache import PreparedCase
from riskft.data.prepare.each import each_case
from riskft.data.records import Case
from riskft.distributed import gather_objects, together
from riskft.errors import InputError, first_few
from riskft.estimate.calibration import risk_map
from riskft.estimate.estimator import Estimator, fit_estimator
from riskft.estimate.evidence import Volume, evidence_of
from riskft.estimate.table import CaseEstimate, cases_csv, mean_risk, volumes_ml
from riskft.evaluation.cases import Segmentation, spacing_of, voxel_ml
from riskft.files import file_digest, fingerprint, json_or_none, keep_old, write_json, write_text
from riskft.progress import track
from riskft.run.folder import PredictionFolder, RunFolder
from riskft.run.places import why_not_writable
from riskft.run.record import Record
from riskft.training.case_evidence import EepEntropy, evidence_of_labelled, refuse_unusable
from riskft.training.found_risk import usable_risk
from riskft.training.module import RiskModule
from riskft.training.of_trainer import run_folder
from riskft.training.record.compare import leaked

log = logging.getLogger(__name__)

CALIBRATED = "P(predicted class is wrong), calibrated on validation cases"
UNCALIBRATED = "entropy of the network, 0 to 1, not calibrated"


class CaseEstimates:
    """What ``predict --expected_risk`` writes beside the segmentations.

    The calibration needs labelled cases that the network was not trained on: the run's validation cases. It is fitted
    before the first prediction, kept in the run folder, and reused as long as all that it depends on is the same, or
    the validation cases can no longer be listed.

    Args:
        folder: The predictions' folder.
        data: The run's data, whose validation cases are listed now, because ``predict`` may then read other scans.
        record: How the weights were made, if known.
        made_with: What predictions depend on.
    """

    def __init__(self, folder: Path, data: RiskDataModule, record: Record | None, made_with: Mapping[str, Any]) -> None:
        self.files = PredictionFolder(folder)
        self.labelled: list[Case] = []
        self._why_not = "There is no labelled validation case (data.split)."
        try:
            self.labelled = [case for case in data.cases()["val"] if case.label is not None]
        except InputError as error:
            self._why_not = f"The validation cases cannot be listed: {error}"
        self.record = record
        self.made_with = dict(made_with)
        self.estimator = Estimator()
        self.key = ""  #: Fingerprint of all that the calibration depends on, after ``start``.
        self._eep: EepEntropy | None = None

    def start(self, trainer: Trainer, module: RiskModule, data: RiskDataModule) -> None:
        """Reads or fits the calibration; all processes must call it, with the weights loaded."""
        run = run_folder(trainer)
        with together("reading phase 1 for the expected risk"):
            found = None
            if run.risk.summary.is_file():
                found = usable_risk(run, module, data, "The expected risk is computed without the EEP")
        if all(gather_objects(found is not None, "reading phase 1 for the expected risk")) and found is not None:
            self._eep = EepEntropy(found, module.device)
        parts = {
            **self.made_with,
            "scored": data.labels.scored,
            "phase 1": [file_digest(path) for path in (run.risk.manifest, run.risk.summary)] if self._eep else None,
        }
        self.key = key = fingerprint(parts)
        # the first process's for all, because the others must not fit without it
        names = sorted(case.subject for case in self.labelled)
        kept = _kept(run, key, names) if trainer.is_global_zero else None
        kept = gather_objects(kept, "reading the calibration")[0]
        if kept is not None:
            self.estimator = kept
            return
        self.estimator, read = self._fitted(trainer, module, data)
        if not self.estimator.calibrated:
            self._eep = None
        if trainer.is_global_zero:
            _announce(self.estimator, "No validation case is left to calibrate it on." if names else self._why_not)
            if self.estimator.calibrated and why_not_writable(run.path) is None:
                write_json(run.estimate, {"fingerprint": key, "labelled": read, **self.estimator.to_json()})

    @property
    def calibration(self) -> str:
        """Fingerprint of the calibration, after ``start``."""
        return fingerprint({"inputs": self.key, "cases": self.estimator.cases})

    def path(self, subject: str) -> Path:
        """Returns the file of a case's map."""
        return self.files.expected_risk(subject)

    def of(
        self, case: Case, data: RiskDataModule, prediction: Segmentation, batch: VolumeBatch
    ) -> tuple[CaseEstimate, Volume]:
        """Returns a case's estimate and its map, (X, Y, Z). The prediction must have its probabilities.

        Raises InputError if these are not finite.
        """
        if prediction.probabilities is None:
            raise ValueError("Expected a prediction with probabilities")
        refuse_unusable(case.subject, prediction.probabilities)
        eep = None if self._eep is None else self._eep(batch.image, batch.affine, case)
        risk = risk_map(prediction.probabilities, eep, self.estimator.risk if self.estimator.calibrated else None)
        scored, affine = data.labels.scored, native_grid(case)[1]
        dice, by_class = self.estimator.dice(evidence_of(prediction.probabilities, eep, scored))
        near = mean_risk(risk, prediction.classes, spacing_of(affine))
        ml = volumes_ml(prediction.classes, scored, voxel_ml(affine))
        return CaseEstimate(case.subject, near, dice, by_class, ml), risk

    def write(self, risk: Volume, case: Case) -> None:
        """Writes a case's map on the scan's own grid."""
        text = CALIBRATED if self.estimator.calibrated else UNCALIBRATED
        path, affine = self.path(case.subject), native_grid(case)[1]
        write_nifti(path, risk, affine, reference_image(case), text, window=(0, 1))

    def finish(self, cases: Sequence[CaseEstimate], data: RiskDataModule) -> None:
        """Writes the tables of all cases (one process); older files with other content are kept under other names."""
        tables = {
            self.files.cases: cases_csv(cases, list(data.labels.scored)),
            self.files.itk_snap_labels: itk_snap_labels(data.class_names),
            self.files.slicer_labels: slicer_labels(data.class_names),
        }
        for path, text in tables.items():
            keep_old(path, unless=text)
            write_text(path, text)

    def _fitted(self, trainer: Trainer, module: RiskModule, data: RiskDataModule) -> tuple[Estimator, list[str]]:
        """Fits the calibration, for which each process runs the network on its share of the cases.

        Also returns the names of the cases that can be read.
        """
        with together("calibrating the expected risk"):
            share = self.labelled[trainer.global_rank :: trainer.world_size]
            found, faults = each_case(data.prepare_cases, share)
            prepared = [case for _, case in found]
            seen = self._seen(prepared)
            mine = [case for case in prepared if case.subject not in seen]
            own = {
                case.subject: evidence_of_labelled(trainer, module, data, case, self._eep)
                for case in track(mine, len(mine), "Calibrating the expected risk")
            }
        part = own, seen, faults, [case.subject for case in prepared]
        evidence, all_seen, all_faults, read = zip(*gather_objects(part, "calibrating the expected risk"), strict=True)
        if trainer.is_global_zero:
            _say_left_out(sorted(chain(*all_seen)), list(chain(*all_faults)))
        return fit_estimator(dict(ChainMap(*evidence))), sorted(chain(*read))

    def _seen(self, cases: Sequence[PreparedCase]) -> set[str]:
        """Returns the subjects that the network was trained on, by content, name or person."""
        if self.record is None:
            return set()
        return set(chain(*leaked(self.record, {c.subject: [c.key, c.case.owner] for c in cases})))


def _kept(run: RunFolder, key: str, names: list[str]) -> Estimator | None:
    content = json_or_none(run.estimate)
    try:
        same = content and content["fingerprint"] == key and (not names or content["labelled"] == names)
        return Estimator.from_json(content) if content and same else None
    except (KeyError, TypeError, ValueError, AttributeError):  # damaged
        return None


def _say_left_out(seen: Sequence[str], faults: Sequence[str]) -> None:
    if seen:
        log.warning(
            "These validation cases do not calibrate the expected risk, because the network was trained on them, or on "
            "the same names or people: %s",
            ", ".join(first_few(seen)),
        )
    if faults:
        log.warning(
            "%s", InputError("The expected risk is calibrated without these validation cases:", first_few(faults))
        )


def _announce(found: Estimator, why_not: str) -> None:
    if not found.calibrated:
        log.warning(
            "The expected risk is not calibrated: the maps show the network's entropy from 0 to 1, which is not a "
            "probability, and the expected Dice takes the network's own probabilities as they are. %s",
            why_not,
        )
        return
    count, error = len(found.cases), found.left_out.get("mean_absolute_error")
    tried = "" if error is None else f"; each left out in turn, the Dice is estimated with a mean error of {error:.3f}"
    log.info("The expected risk is calibrated on %d validation case%s%s", count, "s" * (count > 1), tried)
