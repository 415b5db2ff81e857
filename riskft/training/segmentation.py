"""Segments whole volumes and scores them in validation and test."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from monai.inferers import Inferer
from torch import Tensor

from riskft.data.datamodule import RiskDataModule
from riskft.data.patches.batch import VolumeBatch
from riskft.errors import InputError
from riskft.evaluation.cases import Segmentation, native_segmentation, score_native, score_prepared
from riskft.evaluation.metrics import CaseScore
from riskft.training.of_trainer import data_of
from riskft.training.scores import gather_scores, keep_cases, log_means


class SegmentationModule(LightningModule):
    """Validates, tests and predicts with a network that takes patches; for the arguments, see ``RiskModule``."""

    def __init__(
        self,
        class_names: Sequence[str],
        regions: Mapping[str, Sequence[int]],
        inferer: Inferer,
        channels_last: bool,
        validation_surface: bool,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.regions = {name: list(indices) for name, indices in regions.items()}
        self.inferer = inferer
        self.channels_last = channels_last
        self.validation_surface = validation_surface
        self.keep_probabilities = False
        self.tested: list[CaseScore] = []
        self.validated: list[CaseScore] = []
        self._scores: list[CaseScore] = []

    @abstractmethod
    def logits(self, patch: Tensor) -> Tensor:
        """Returns the logits (B, Y, *spatial) of patches (B, C, *spatial) in the network's memory order."""

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits (B, Y, *spatial) of patches (B, C, *spatial)."""
        return self.logits(self.ordered(image))

    def infer(self, image: Tensor) -> Tensor:
        """Returns the network's logits (1, Y, X, Y, Z) of a whole volume (1, C, X, Y, Z)."""
        logits: Tensor = self.inferer(self.ordered(image), self.logits)
        return logits

    def ordered(self, image: Tensor) -> Tensor:
        """Returns an image (B, C, *spatial) in the network's memory order."""
        return image.contiguous(memory_format=torch.channels_last_3d) if self.channels_last else image

    # Lightning passes any step output to the callbacks, though its types allow only tensors and mappings

    def validation_step(self, batch: VolumeBatch, batch_idx: int) -> Segmentation:  # type: ignore[override]
        """Segments a volume on the prepared grid and scores it."""
        classes = self.infer(batch.image).argmax(1)[0]
        self._scores += score_prepared(classes, batch, self.class_names, self.regions, self.validation_surface)
        return Segmentation(batch.subject, classes.to(torch.uint8).cpu().numpy())

    def test_step(self, batch: VolumeBatch, batch_idx: int) -> Segmentation:  # type: ignore[override]
        """Segments a volume in the scan's own geometry and scores it against the label on disk."""
        data = self._data()
        segmentation = self.predict_step(batch, batch_idx)
        case = data.prepared_case(batch.subject).case
        self._scores += score_native(segmentation, case, data.labels, self.class_names, self.regions)
        return segmentation

    def predict_step(self, batch: VolumeBatch, batch_idx: int) -> Segmentation:
        """Segments a volume in the scan's own geometry."""
        probabilities = self.infer(batch.image).float().softmax(1)[0]
        case = self._data().prepared_case(batch.subject).case
        return native_segmentation(probabilities, batch.affine, case, self.keep_probabilities)

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the cases of all ranks."""
        self.validated = self._finish("val")

    def on_test_epoch_end(self) -> None:
        """Logs the means over the cases of all ranks and writes ``cases.csv``."""
        self.tested = self._finish("test")
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            keep_cases(self.trainer, self.tested)

    def _finish(self, stage: str) -> list[CaseScore]:
        scores, self._scores = gather_scores(self._scores, stage, list(self.regions) or self.class_names), []
        log_means(self, stage, scores)
        return scores

    def _data(self) -> RiskDataModule:
        data = data_of(self.trainer)
        if data is None:
            raise InputError("Test and prediction in the scan's own geometry need a riskft.RiskDataModule.")
        return data


@torch.no_grad()
def tested_logits(trainer: Trainer, module: SegmentationModule, image: Tensor) -> Tensor:
    """Returns the logits (1, Y, X, Y, Z) of an image (1, C, X, Y, Z) in the precision of the trainer's test."""
    precision = trainer.precision_plugin
    with precision.test_step_context():
        return module.infer(precision.convert_input(image.to(module.device)))


def window_size(inferer: Inferer) -> Sequence[int]:
    """Returns the inferer's window in voxels along x, y, z; 64 each if it has none."""
    size = getattr(inferer, "roi_size", 64)
    return [int(size)] * 3 if isinstance(size, (int, float)) else [int(edge) for edge in size]
