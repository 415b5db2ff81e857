"""The target data set for Lightning: a patch queue for training, whole volumes otherwise."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchio as tio
from lightning.pytorch import LightningDataModule

from riskft.compat import lazy_instance
from riskft.data.check.data_set import CheckMemory, CheckReport, check
from riskft.data.check.training import huge_grids, refuse_unusable, too_few_patches
from riskft.data.labels import LabelMap
from riskft.data.patches.batch import share_of, volume_loader
from riskft.data.patches.queue import PatchLoader
from riskft.data.patches.sampling import BalancedSampling, PatchSampling
from riskft.data.patches.subjects import NamedSubjects, TrainingMaps, maps_made_for
from riskft.data.patches.volumes import training_patches
from riskft.data.prepare.cache import PreparedCache, PreparedCase
from riskft.data.prepare.preprocess import Preprocessing
from riskft.data.readers.base import Reader
from riskft.data.readers.unlabelled import UnlabelledReader
from riskft.data.records import Case
from riskft.data.splits import FractionSplit, Split, cases_read_by, split_cases
from riskft.distributed import gather_objects, is_first_rank, together
from riskft.errors import InputError
from riskft.files import fingerprint

log = logging.getLogger(__name__)


class RiskDataModule(LightningDataModule):
    """Reads, checks and preprocesses a data set once, and serves patches and volumes on any number of ranks.

    It shards its loaders itself, so the trainer needs ``use_distributed_sampler=False`` (the command line sets it).

    Args:
        reader: Finds the cases in a folder layout.
        modalities: The input channels, in order, by the reader's names.
        labels: Classes of the task and their label values; null takes them from the data set's own description
            (``dataset.json``, ``dseg.tsv``).
        split: Assigns the cases to training, validation and test.
        train_limit: Few-shot: train on the training cases of this many people, with all scans of each (a smaller
            number gives a subset of a larger one); null for all.
        train_limit_seed: Selects the people for ``train_limit``; studies over seeds should vary it too.
        cache_dir: Folder of the preprocessed cases, shared by runs and methods.
        preprocessing: Deterministic preprocessing, done once.
        augment: TorchIO transforms of the training volumes. Those of ``configs/data/augment.yaml`` are computed for the
            patches only; others transform whole volumes, which takes longer.
        patch_size: Voxels of a training patch along x, y, z.
        patches_per_volume: Patches sampled from a training volume each epoch.
        batch_size: Patches per step and rank.
        queue_length: Patches that are shuffled together and held in memory; with workers, up to twice as many are held.
        sampling: Where patches are sampled.
        num_workers: Processes that load and augment training volumes; if above 0, one more reads volumes to evaluate.
        check_files: First check all files as ``riskft data check`` does; files that passed and have not changed are
            not read again.

    Raises:
        InputError: For an unusable value.
    """

    def __init__(
        self,
        reader: Reader,
        modalities: list[str],
        labels: LabelMap | None = None,
        split: Split = lazy_instance(FractionSplit),  # noqa: B008
        train_limit: int | None = None,
        train_limit_seed: int = 0,
        cache_dir: str = "cache",
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008
        augment: list[tio.Transform] | None = None,
        patch_size: list[int] = [64, 64, 64],  # noqa: B006
        patches_per_volume: int = 4,
        batch_size: int = 2,
        queue_length: int = 64,
        sampling: PatchSampling = lazy_instance(BalancedSampling),  # noqa: B008
        num_workers: int = 0,
        check_files: bool = True,
    ) -> None:
        super().__init__()
        counts = {"patches_per_volume": patches_per_volume, "batch_size": batch_size, "queue_length": queue_length}
        refuse_unusable(counts, patch_size, modalities)
        self.reader = reader
        self.modalities = list(modalities)
        self.labels = reader.complete_labels(labels)
        self.split = split
        self.train_limit = train_limit
        self.train_limit_seed = train_limit_seed
        self.cache_dir = Path(cache_dir)
        self.preprocessing = preprocessing
        self.augment = list(augment or [])
        self.patch_size = list(patch_size)
        self.patches_per_volume = patches_per_volume
        self.batch_size = batch_size
        self.queue_length = queue_length
        self.sampling = sampling
        self.num_workers = num_workers
        self.check_files = check_files
        self._prepared: dict[str, list[PreparedCase]] = {}
        self._problem: str | None = None
        self.left_out: frozenset[str] = frozenset()  # of the cases to predict
        self._seed = 0

    @property
    def class_names(self) -> list[str]:
        """Class names by index, background first."""
        return list(self.labels.names)

    @property
    def regions(self) -> dict[str, list[int]]:
        """Class indices of each region to score; empty if the classes themselves are scored."""
        return {name: list(indices) for name, indices in self.labels.scored.items()} if self.labels.regions else {}

    @property
    def num_channels(self) -> int:
        """Number of input channels."""
        return len(self.modalities)

    def cases(self) -> dict[str, list[Case]]:
        """Lists the cases of each split, by file names only."""
        return split_cases(self.reader, self.modalities, self.split, self.train_limit, self.train_limit_seed)

    @contextmanager
    def reading_folder(self, root: str | Path) -> Iterator[None]:
        """Inside the ``with`` block, reads the unlabelled scans of a folder (see ``UnlabelledReader``)."""
        own = self.reader, self._prepared
        self.reader, self._prepared = UnlabelledReader(root), {}
        try:
            yield
        finally:
            self.reader, self._prepared = own

    def _needed_cases(self, cache: PreparedCache) -> dict[str, list[Case]]:
        """Returns the cases that the trainer's command reads; without a trainer, those of ``fit``."""
        command = self.trainer.state.fn.value if self.trainer is not None and self.trainer.state.fn else "fit"
        return cases_read_by(command, self.cases(), cache)

    def prepare_data(self) -> None:
        """Checks all files and preprocesses the cases that are not in the cache (one process per node).

        Bad input is kept for ``setup``, where every process raises it: raised here, its message would be lost among
        those of the processes that wait for this one.
        """
        self._problem = None  # of an earlier command in the same process
        try:
            cache = self._cache()
            cases = self._needed_cases(cache)
            if self.check_files:
                report = self.check(cases, CheckMemory(self.cache_dir / "checks.json"))
                report.raise_if_faulty()
                if is_first_rank():
                    report.log_warnings(log)
            cache.prepare([case for split in cases.values() for case in split], workers=self.num_workers)
        except InputError as error:
            if self.trainer is None:
                raise
            self._problem = str(error)

    def check(self, cases: Mapping[str, Sequence[Case]], memory: CheckMemory | None = None) -> CheckReport:
        """Checks cases by split and how they fit the options; see ``riskft.data.check.data_set.check``."""
        report = check(cases, self.labels, memory=memory)
        train, (_, world_size) = len(cases.get("train", ())), self._ranks()
        more = too_few_patches(train, self.patches_per_volume, self.batch_size, world_size)
        more += huge_grids(report.rows, self.preprocessing.spacing)
        return replace(report, faults=[*report.faults, *more])

    def setup(self, stage: str) -> None:
        """Finds the prepared cases (all ranks).

        Raises:
            InputError: If a case is faulty, or a split that the stage needs is empty.
        """
        with together("preparing the data"):
            if self._problem is not None:
                raise InputError(self._problem)
            cache = self._cache()
            for split, cases in self._needed_cases(cache).items():
                if split not in self._prepared:
                    self._prepared[split] = cache.prepare(cases)
        # fixed now, after seed_everything, so that an epoch's random numbers do not depend on earlier ones; rank 0's
        # for all, because shares made with different seeds would overlap
        self._seed = gather_objects(torch.initial_seed(), "the seed of the patches")[0] % 2**31
        needed = {"fit": "train", "validate": "val", "test": "test"}.get(stage)
        if needed and not self._prepared.get(needed):
            raise InputError(f"There is no case in the split '{needed}', which `{stage}` needs. See data.split.")

    def prepare_cases(self, cases: Sequence[Case]) -> list[PreparedCase]:
        """Preprocesses further cases, unless the cache holds them; they enter no split."""
        return self._cache().prepare(cases, workers=self.num_workers)

    def prepared(self, split: str) -> list[PreparedCase]:
        """Returns the prepared cases of a split (after ``setup``); an empty ``predict`` returns the test cases."""
        cases = self._prepared.get(split, [])
        return self._prepared.get("test", []) if split == "predict" and not cases else cases

    def prepared_case(self, subject: str) -> PreparedCase:
        """Returns a prepared case by its subject.

        Raises:
            KeyError: If there is none.
        """
        return {case.subject: case for cases in self._prepared.values() for case in cases}[subject]

    def fingerprint(self, split: str = "train") -> str:
        """Returns a fingerprint of a split's content, preprocessing and label map."""
        return fingerprint({case.subject: case.key for case in self.prepared(split)})

    def case_keys(self, split: str) -> dict[str, list[str]]:
        """Returns, by subject, the fingerprint of a case's files, label map and preprocessing, and its person.

        Raises:
            InputError: If a file cannot be read.
        """
        if split in self._prepared:
            return {case.subject: [case.key, case.case.owner] for case in self._prepared[split]}
        cases = self.cases()[split]
        keys = self._cache().keys(cases)
        return {case.subject: [key, case.owner] for case, key in zip(cases, keys, strict=True)}

    def order_classes(self, names: Sequence[str]) -> None:
        """Puts the foreground classes in a checkpoint's order, before anything is prepared."""
        self.labels = replace(self.labels, classes={name: self.labels.classes[name] for name in names})

    def train_dataloader(self) -> Any:
        """Returns the training loader with the maps that phase 1 made for this trainer.

        Lightning calls it without arguments, after the ``setup`` of every callback. So the maps come from the callback
        that made them: the data module keeps none, and no fit sees the maps of an earlier one.
        """
        return self.training_loader(maps_made_for(self.trainer))

    def training_loader(self, maps: TrainingMaps) -> Any:
        """Returns the loader of ``PatchBatch``, with the maps' weights and EEPs if given.

        Raises:
            InputError: If a training case has no map, sampling needs maps and there are none, or an epoch has fewer
                patches than a batch.
        """
        if self.sampling.needs_risk and maps.weights is None:
            raise InputError(
                "data.sampling follows the risk map, but there is none: add riskft.RiskMapCallback with "
                "attach: true to trainer.callbacks, or choose another sampling."
            )
        rank, world_size = self._ranks()
        return PatchLoader(
            training_patches(
                self.prepared("train"),
                maps,
                self.augment,
                self.patch_size,
                self.sampling,
                len(self.labels.names),
                self.patches_per_volume,
            ),
            self.batch_size,
            self.queue_length,
            num_workers=self.num_workers,
            rank=rank,
            world_size=world_size,
            seed=self._seed,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> Any:
        """Returns the loader of ``VolumeBatch`` for validation."""
        return self._volumes("val")

    def test_dataloader(self) -> Any:
        """Returns the loader of ``VolumeBatch`` for test."""
        return self._volumes("test")

    def predict_dataloader(self) -> Any:
        """Returns the loader of ``VolumeBatch`` to predict."""
        return self._volumes("predict")

    def _volumes(self, split: str) -> Any:
        left_out = self.left_out if split == "predict" else frozenset()
        subjects = [case.to_subject() for case in self.prepared(split) if case.subject not in left_out]
        order = share_of(len(subjects), *self._ranks())
        return volume_loader(NamedSubjects(subjects) if subjects else [], order, self.num_workers)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _cache(self) -> PreparedCache:
        return PreparedCache(self.cache_dir, self.labels, self.preprocessing)
