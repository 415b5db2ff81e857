"""Phase 1 as a Lightning callback at the start of ``fit``."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from riskft.data.datamodule import RiskDataModule
from riskft.data.patches.subjects import TrainingMaps
from riskft.data.prepare.cache import PreparedCase
from riskft.distributed import gather_objects, together
from riskft.errors import InputError
from riskft.risk.contrast import better_seen
from riskft.risk.mapping import RiskMapping
from riskft.risk.phase import RiskPhase
from riskft.risk.ranks import Ranks
from riskft.risk.source_pass import SourcePass
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary
from riskft.run.risk import default_store
from riskft.source.network import SourceNetwork, options_as_text
from riskft.training.module import RiskModule
from riskft.training.of_trainer import data_of, run_folder
from riskft.training.risk_summary import log_risk_summary

log = logging.getLogger(__name__)


class RiskMapCallback(Callback):
    """Makes the transfer risk maps of the training cases before the first step, or reuses those in the store.

    The unchanged source network, with its own head, runs once over each training volume (with
    ``model.source.invert: auto``, twice over at most eight of them). P(y|z) initializes the target's head
    (``model.head_init``). The training loader, which Lightning makes later, reads the maps that ``training_maps``
    names. Validation cases get maps for the panels but do not enter P(y|z).

    Args:
        mapping: How hardness becomes weight.
        attach: Train with the maps. false: make them for the head and the panels, but do not weight the loss: the
            control of plain fine-tuning. The EEP is made and used whenever ``model.loss`` needs it.
        use_mask: Exclude voxels outside the body mask from P(y|z), LEEP and the maps.
        store: Folder of the maps. Default: ``risk`` in the data module's cache, which the runs of a study share.
    """

    def __init__(
        self,
        mapping: RiskMapping = RiskMapping(),  # noqa: B008
        attach: bool = True,
        use_mask: bool = False,
        store: str | None = None,
    ) -> None:
        super().__init__()
        self.mapping = mapping
        self.attach = attach
        self.use_mask = use_mask
        self.store_root = store
        self.store: RiskStore | None = None
        self.summary: RiskSummary | None = None
        self.training_maps = TrainingMaps()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Runs phase 1, initializes the head, names the maps for the training loader and logs the results.

        This happens in ``setup`` because the optimizer, the averaged weights and the training loader are made later,
        and the checkpoint of a resumed run is loaded later.
        """
        if stage != "fit":
            return
        data = data_of(trainer)
        if not isinstance(pl_module, RiskModule) or data is None:
            raise InputError("RiskMapCallback needs a riskft.RiskModule and a riskft.RiskDataModule.")
        with together("phase 1"):
            self._make_maps(trainer, pl_module, data)

    def _make_maps(self, trainer: Trainer, module: RiskModule, data: RiskDataModule) -> None:
        train, source = data.prepared("train"), module.load_source()
        if module.source.invert == "auto":
            source = self._more_informative(source, trainer, module, data)
        source_pass = self._source_pass(source, trainer, module, data)
        self.store = store = source_pass.store
        if trainer.is_global_zero:
            _announce(store, run_folder(trainer).risk.manifest)
        phase = RiskPhase(source_pass, self.mapping, keep_eep=module.loss.needs_eep)
        self.summary = phase.run(train, mapped_validation_cases(data))
        source.network.cpu()
        module.start_from(source, self.summary.joint, self.summary.knowledge)
        self.training_maps = TrainingMaps(
            {case.subject: store.weight_path(case.subject) for case in train} if self.attach else None,
            {case.subject: store.eep_path(case.subject) for case in train} if module.loss.needs_eep else None,
        )
        if trainer.is_global_zero:
            channels = source.class_names or tuple(f"source {k}" for k in range(source.channels))
            log_risk_summary(trainer, self.summary, data.class_names, source.output.state_names(channels), store)

    def _more_informative(
        self, source: SourceNetwork, trainer: Trainer, module: RiskModule, data: RiskDataModule
    ) -> SourceNetwork:
        """Returns the source, inverted if inversion makes it more informative."""
        try:
            inverted = source.with_inversion()
        except InputError as error:
            log.info("Phase 1: %s The source is shown the images as they are.", error)
            return source
        as_it_is, with_inversion = (self._source_pass(each, trainer, module, data) for each in (source, inverted))
        if better_seen(as_it_is, with_inversion, data.prepared("train")):
            source, inverted = inverted, source
        inverted.network.cpu()
        return source

    def _source_pass(
        self, source: SourceNetwork, trainer: Trainer, module: RiskModule, data: RiskDataModule
    ) -> SourcePass:
        root = Path(self.store_root) if self.store_root else default_store(data.cache_dir)
        source.network.to(trainer.strategy.root_device)
        return SourcePass(
            RiskStore(root, phase_inputs(module, data, source, self.use_mask), self.mapping.describe()),
            source.predictor(),
            len(data.class_names),
            use_mask=self.use_mask,
            device=trainer.strategy.root_device,
            ranks=Ranks(trainer.global_rank, trainer.world_size, gather_objects),
        )


def _announce(store: RiskStore, previous: Path) -> None:
    """Logs why maps are made again; ``previous`` is the manifest of the run's last phase 1, if there was one."""
    changes = ", ".join(store.changes(previous))
    if changes and previous.is_file():
        log.warning("Phase 1: this run's risk maps are out of date and are made again. Changed: %s", changes)
    elif changes:
        log.info("Phase 1: new risk maps. They differ from the latest ones in the store in: %s", changes)
    elif store.other_options():
        log.info("Phase 1: other options of the map; the source network need not run again")


def phase_inputs(module: RiskModule, data: RiskDataModule, source: SourceNetwork, use_mask: bool) -> dict[str, Any]:
    """Returns everything that hardness depends on, by name. Call it after ``data.setup``."""
    return {
        "source": source.digest,
        "inverted": source.inverted,
        "source architecture": module.source.description(),
        "source outputs": f"{source.output!r} {source.read.evaluation.paths[0]} {source.read.evaluation.activation}",
        "training data and preprocessing": {case.subject: case.key for case in data.prepared("train")},
        "validation data": {case.subject: case.key for case in mapped_validation_cases(data)},
        "classes": data.class_names,
        "inference": options_as_text(source.inferer),
        "mask": use_mask,
    }


def mapped_validation_cases(data: RiskDataModule) -> list[PreparedCase]:
    """Returns the validation cases that get maps for the panels."""
    return [case for case in data.prepared("val") if case.labelled]
