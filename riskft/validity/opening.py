"""Opens a pair of runs as they were trained, and the results of phase 1, and checks that they belong together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor

from riskft.build import Command
from riskft.data.datamodule import RiskDataModule
from riskft.data.labels import IGNORE_INDEX
from riskft.errors import InputError, UsageError, first_few, refuse
from riskft.risk.distribution import ClassDistribution
from riskft.risk.forward import Infer, counted_target
from riskft.risk.store import RiskStore
from riskft.run.folder import RunFolder
from riskft.source.network import SourceNetwork
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.checkpoints import find_checkpoint
from riskft.training.found_risk import find_risk
from riskft.training.module import RiskModule
from riskft.training.segmentation import tested_logits
from riskft.validity.pairs import RunPair


@dataclass(frozen=True)
class LoadedRun:
    """A run built from its config, at first without its weights."""

    folder: RunFolder  #: The run's folder.
    module: RiskModule
    data: RiskDataModule  #: The data, all splits prepared.
    trainer: Trainer  #: Device and precision of its test.

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.trainer.strategy.root_device

    def load_weights(self) -> None:
        """Loads the best checkpoint and moves the module to its device, as ``riskft test`` does."""
        checkpoint = WholeCheckpointIO().load_checkpoint(
            find_checkpoint(self.folder), map_location="cpu", weights_only=True
        )
        self.module.load_state_dict(checkpoint["state_dict"], strict=self.module.strict_loading)
        self.module.setup("test")
        self.trainer.precision_plugin.convert_module(self.module.eval()).to(self.device)

    def probabilities(self, image: Tensor) -> Tensor:
        """Returns an image's class probabilities, (Y, X, Y, Z) float32 on the CPU, from (1, C, X, Y, Z)."""
        return tested_logits(self.trainer, self.module, image).float().softmax(1)[0].cpu()


def load_run(folder: Path, accelerator: str | None = None) -> LoadedRun:
    """Builds a run from its config and prepares its data; raises InputError if they can no longer be used."""
    run = RunFolder(folder)
    arguments = ["test", "--config", str(run.config), "--trainer.strategy", "auto"]
    arguments += ["--trainer.devices", "1", "--trainer.num_nodes", "1"]
    arguments += ["--trainer.accelerator", accelerator] if accelerator else []
    try:
        built = Command(arguments)
        built.build_apart()
    except UsageError as error:
        raise InputError(f"{run.config}: {error.args[0]}") from None
    except InputError as error:
        # Lightning raises this for the trainer's options
        if not isinstance(error.__cause__, MisconfigurationException):
            raise
        raise InputError(f"{run.config}: {error.__cause__} Choose another device with --accelerator.") from error
    data: RiskDataModule = built.datamodule
    data.prepare_data()
    data.setup("test")
    return LoadedRun(run, built.model, data, built.trainer)


@dataclass(frozen=True)
class OpenRunPair:
    """A pair of runs, and the results of phase 1."""

    pair: RunPair  #: Their names.
    run: LoadedRun  #: The fine-tuned run.
    scratch: LoadedRun  #: The run from scratch.
    source: SourceNetwork  #: The fine-tuned run's source network.
    joint: Tensor  #: (Y, Z) float64, unnormalised.
    use_mask: bool  #: Whether voxels outside the body are ignored.
    dataset: ClassDistribution | None  #: The training cases' hardness by class, or None if it is no longer kept.

    def loaded(self) -> Infer:
        """Loads all weights onto the run's device, and returns the source as phase 1 runs it on whole volumes."""
        self.run.load_weights()
        self.scratch.load_weights()
        self.source.network.to(self.run.device)
        return self.source.predictor()


def open_pair(pair: RunPair, accelerator: str | None = None) -> OpenRunPair:
    """Builds both runs, and checks that they and phase 1 belong together; raises InputError with all reasons if not.

    ``accelerator`` is Lightning's name of the device; by default that of the training.
    """
    tuned, scratch = (load_run(folder, accelerator) for folder in (pair.run.folder, pair.scratch.folder))
    found = find_risk(tuned.folder, tuned.module)
    problems = found.stale(tuned.module, tuned.data)
    problems += [f"the run from scratch {problem}" for problem in differences(tuned.data, scratch.data)]
    problems += [f"test case {case.subject}: has no label" for case in tuned.data.prepared("test") if not case.labelled]
    refuse(f"cannot be compared with {pair.scratch.folder}:", problems)
    dataset = kept_distribution(tuned.folder, tuned.data)
    return OpenRunPair(pair, tuned, scratch, found.source, found.joint, found.use_mask, dataset)


def differences(run: RiskDataModule, scratch: RiskDataModule) -> list[str]:
    """Says how the data of a run from scratch differ from those of the fine-tuned run."""
    problems = []
    if run.class_names != scratch.class_names:
        problems.append(f"has the classes {scratch.class_names}, expected {run.class_names}")
    for split, name in (("train", "training"), ("test", "test")):
        # the keys stand for the files' content, the label map and the preprocessing
        mine, theirs = ({case.subject: case.key for case in data.prepared(split)} for data in (run, scratch))
        if missing := sorted(mine.keys() - theirs.keys()):
            problems.append(f"lacks the {name} cases {', '.join(first_few(missing))}")
        if further := sorted(theirs.keys() - mine.keys()):
            problems.append(f"has additional {name} cases: {', '.join(first_few(further))}")
        other = sorted(subject for subject in mine.keys() & theirs.keys() if mine[subject] != theirs[subject])
        if other:
            problems.append(
                f"has other images, labels or preprocessing for the {name} cases {', '.join(first_few(other))}"
            )
    return problems


def kept_distribution(run: RunFolder, data: RiskDataModule) -> ClassDistribution | None:
    """Returns the training cases' hardness by class from the risk store, or None if it is no longer complete."""
    if (files := run.risk.store()) is None:
        return None
    store = RiskStore.of(files)
    cases = data.prepared("train")
    if not all(store.has_hardness(case.subject) for case in cases):
        return None
    dataset = ClassDistribution(len(data.class_names))
    for case in cases:
        target = counted_target(case, bool(store.inputs.get("mask")))
        counts = target != IGNORE_INDEX
        dataset.update(store.read_hardness(case.subject)[0][counts], target[counts])
    return dataset


def open_all(pairs: Sequence[RunPair], accelerator: str | None) -> list[OpenRunPair]:
    """Opens all pairs before anything is computed, so that one report lists all problems."""
    opened: list[OpenRunPair] = []
    problems: list[str] = []
    for pair in pairs:
        try:
            opened.append(open_pair(pair, accelerator))
        except InputError as error:
            problems.append("\n    ".join([f"{pair.run.folder}: {error.title}", *error.problems]))
    refuse("These runs do not show whether the map is right:", problems)
    return opened
