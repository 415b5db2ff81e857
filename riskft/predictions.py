"""Segmentations from ``predict`` as image files."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from riskft.data.datamodule import RiskDataModule
from riskft.data.formats import ENDINGS, ending, parts, stem
from riskft.data.native import native_dtype, reference_image, write_native
from riskft.data.records import Case
from riskft.distributed import together
from riskft.errors import InputError
from riskft.risk.store import RiskStore

log = logging.getLogger(__name__)


class SegmentationWriter(BasePredictionWriter):
    """Writes class indices in the scan's own geometry and format, as each case is finished.

    A file is named as ``output_names`` says.

    Args:
        folder: Where files go; not where the scans are.
        overwrite: Replace files that exist.
        probabilities: Write ``<subject>_probabilities.nii.gz``, (X, Y, Z, classes) float32, as well.
        dtype: Stored type of the segmentations: ``uint8``, or ``input`` for that of the scan (of its first modality),
            where it can hold the class indices.
    """

    def __init__(
        self,
        folder: str | Path,
        overwrite: bool = False,
        probabilities: bool = False,
        dtype: Literal["input", "uint8"] = "input",
    ) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path(folder)
        self.overwrite = overwrite
        self.probabilities = probabilities
        self.dtype = dtype
        self._names: dict[str, str] = {}
        self._warned = False

    def check(self, cases: Sequence[Case]) -> None:
        """Looks at the names of what would be written, and of nothing else; to be called before anything is computed.

        Raises:
            InputError: If scans lie in the folder, files would be overwritten, or two cases' files have one name.
        """
        folder = self.folder.resolve()
        scans = {path for case in cases for path in case.files if path.parent.resolve() == folder}
        if scans:
            raise InputError(
                f"{self.folder} holds the scans themselves. Choose another folder for the segmentations (--out):",
                _first([str(path) for path in sorted(scans)]),
            )
        names = output_names(cases)
        targets = [self.folder / name for name in names.values()]
        if self.probabilities:
            targets += [self._probabilities_path(subject) for subject in names]
        if twice := [name for name, count in Counter(path.name for path in targets).items() if count > 1]:
            raise InputError("Several cases' files would have one name. Rename the subjects:", _first(twice))
        existing = [str(part) for path in targets for part in parts(path) if part.exists()]
        if existing and not self.overwrite:
            raise InputError(
                f"{len(existing)} output files exist. Add --overwrite true, or choose another --out:", _first(existing)
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses to overwrite before anything is computed."""
        cases = [prepared.case for prepared in _data(trainer).prepared("predict")]
        # all processes look before the first of them writes
        with together("looking for segmentations that exist"):
            self.check(cases)
        self._names = output_names(cases)

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
        """Writes one case."""
        data = _data(trainer)
        case = data.prepared_case(prediction["subject"]).case
        dtype = np.dtype(np.uint8) if self.dtype == "uint8" else self._scan_dtype(case, len(data.class_names))
        write_native(self.folder / self._names[case.subject], prediction["segmentation"].astype(dtype), case)
        probabilities = prediction.get("probabilities")
        if self.probabilities and probabilities is not None:
            volume = np.moveaxis(np.asarray(probabilities, dtype=np.float32), 0, -1)
            write_native(self._probabilities_path(case.subject), volume, case)

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
        return self.folder / f"{RiskStore.safe_name(subject)}_probabilities.nii.gz"


def output_names(cases: Sequence[Case]) -> dict[str, str]:
    """Returns the names of the cases' segmentations by subject: ``<subject>`` with the first image's ending.

    ``FolderReader`` calls a subject what its file is called, so that a folder's names are kept. What is no format of
    ``ENDINGS`` becomes ``.nii.gz``.

    Raises:
        InputError: If a subject is there twice.
    """
    if twice := [subject for subject, count in Counter(case.subject for case in cases).items() if count > 1]:
        raise InputError("Several cases have the same subject. Rename one of each, or drop it:", _first(twice))
    return {case.subject: f"{_own_stem(case)}{_own_ending(case)}" for case in cases}


def holds(dtype: np.dtype[Any], classes: int) -> bool:
    """Whether a stored type takes the indices of so many classes, and is one that all formats can store."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max) >= classes - 1
    return dtype in (np.dtype(np.float32), np.dtype(np.float64))


def _own_stem(case: Case) -> str:
    # a name that a file has already is one that files can have
    return case.subject if case.subject == stem(reference_image(case)) else RiskStore.safe_name(case.subject)


def _own_ending(case: Case) -> str:
    own = ending(reference_image(case))
    return own if own.lower() in ENDINGS else ".nii.gz"


def _first(names: Sequence[str]) -> list[str]:
    return [*names[:3], *([f"and {len(names) - 3} more"] if len(names) > 3 else [])]


def _data(trainer: Trainer) -> RiskDataModule:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, RiskDataModule):
        raise InputError("SegmentationWriter needs a riskft.RiskDataModule.")
    return data
