"""Phase 1 without Lightning: from prepared cases and a frozen source network to hardness and weight volumes."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.memory import volumes_given_back
from riskft.data.io.volumes import read_volume
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.progress import track
from riskft.risk.distribution import ClassDistribution
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.leep import LeepConditional, conditional_from_joint, expected_prediction, hardness, label_entropy
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.store import RiskStore
from riskft.risk.summary import RiskSummary

log = logging.getLogger(__name__)

Gather = Callable[[Any, str], list[Any]]
"""Collects an object from every rank, in rank order, and so is a barrier too; told the phase, for messages."""


_WEIGHT_EDGES = np.concatenate([np.linspace(0, 4, 81), [5, 6, 8, 10, 20, 1e9]])


class RiskPhase:
    """Makes the maps of training cases, and with the same P(y|z) those of other labelled cases.

    One forward pass per volume. The source probabilities wait on disk until P(y|z) is known; memory holds one volume
    at a time. Every sum over subjects is taken in the subjects' order, so that the result does not depend on the
    number of processes; subjects are shared out over these. A killed phase goes on at the next subject.

    Args:
        store: Where files go.
        infer: (1, C, X, Y, Z) image -> (1, |Z|, X, Y, Z) source probabilities.
        mapping: Options of the map.
        num_classes: |Y|.
        use_mask: Let voxels outside the head count nowhere.
        keep_expectation: Keep the training cases' EEP, which distillation needs.
        device: Where tensors are computed.
        rank: This process.
        world_size: Number of processes.
        gather: Collects objects over ranks.
    """

    def __init__(
        self,
        store: RiskStore,
        infer: Callable[[Tensor], Tensor],
        mapping: RiskMapping,
        num_classes: int,
        *,
        use_mask: bool = False,
        keep_expectation: bool = False,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        gather: Gather = lambda item, what: [item],
    ) -> None:
        self.store = store
        self.infer = infer
        self.mapping = mapping
        self.num_classes = num_classes
        self.use_mask = use_mask
        self.keep_expectation = keep_expectation
        self.device = torch.device(device)
        self.rank, self.world_size = rank, world_size
        self.gather = gather

    def run(self, train: Sequence[PreparedCase], others: Sequence[PreparedCase] = ()) -> RiskSummary:
        """Makes what is missing.

        Args:
            train: Cases that make P(y|z); all labelled.
            others: Labelled cases that get maps but do not enter P(y|z), such as validation cases for display.
        """
        everyone = [*train, *others]
        subjects = [case.subject for case in everyone]
        ready = self.store.read_summary(subjects)
        # ranks decide together: one that sees an old file must not skip the collectives of the others
        if all(self.gather(ready is not None, "phase 1: looking for maps")) and ready is not None:
            log.info("Phase 1: risk maps of %d subjects reused from %s", len(subjects), self.store.weights_folder)
            found = RiskSummary.from_json(ready)
            self._expectations(train, found.joint)
            return found
        self.store.refuse_unwritable()
        if self.rank == 0:
            self.store.write_manifests()
        self._forward(everyone)
        joint = self._joint(train)
        self._expectations(train, joint)  # before the source probabilities are dropped
        with volumes_given_back():  # not before: it would slow the network down
            self._hardness(everyone, joint)
            dataset, hardness_sums = self._distribution(train, joint)
            voxels = dataset.counts.sum(1)
            leep = -float(hardness_sums.sum() / voxels.sum())
            knowledge = source_knowledge(joint, leep)
            self._write_weights(everyone, joint, dataset, knowledge)
            weight_sums, counts = self._weight_statistics(train)
        summary = RiskSummary(
            joint=joint,
            leep=leep,
            label_entropy=label_entropy(joint),
            knowledge=knowledge,
            class_voxels=voxels.tolist(),
            class_hardness=(hardness_sums / voxels.clamp_min(1)).tolist(),
            class_weight=(weight_sums / voxels.clamp_min(1)).tolist(),
            weight_edges=_WEIGHT_EDGES.tolist(),
            weight_counts=counts.tolist(),
        )
        if self.rank == 0:
            self.store.write_summary(summary.to_json(), subjects)
        self.gather(None, "phase 1: summary")
        return summary

    @torch.no_grad()
    def knowledge(self, train: Sequence[PreparedCase]) -> float:
        """Returns the part of these cases' label entropy that the source explains, running it where that is not known.

        What is found is kept, and the source probabilities too: ``run`` goes on with them.

        Args:
            train: Labelled cases.
        """
        known = self.store.read_knowledge()
        if all(self.gather(known is not None, "phase 1: looking for a comparison")) and known is not None:
            return known
        self.store.refuse_unwritable()
        self._forward(train)
        joint = self._joint(train)
        conditional = conditional_from_joint(joint)
        own = {}
        for case in self._mine(train):
            with files_named(case.subject, case.files):
                target = self._target(case).cpu()
            values = hardness(self._probabilities(case).cpu(), target[None], conditional, IGNORE_INDEX)
            own[case.subject] = values.sum(dtype=torch.float64)
        result = source_knowledge(joint, -float(self._ordered_sum(own) / joint.sum()))
        if self.rank == 0:
            self.store.write_knowledge(result)
        self.gather(None, "phase 1: comparison")
        return result

    def drop_forward(self, cases: Sequence[PreparedCase]) -> None:
        """Removes the source probabilities of cases that will not be mapped."""
        for case in self._mine(cases):
            self.store.drop_probabilities(case.subject)

    def _mine(self, cases: Sequence[PreparedCase]) -> list[PreparedCase]:
        return list(cases[self.rank :: self.world_size])

    @torch.no_grad()
    def _forward(self, cases: Sequence[PreparedCase]) -> None:
        missing = [case for case in self._mine(cases) if not self.store.has_forward(case.subject)]
        broken: list[str] = []
        for case in track(missing, len(missing), "Phase 1: source network"):
            if self.store.has_forward(case.subject):
                continue  # another run that shares the store has been faster
            probabilities = source_probabilities(case, self.infer, self.device)
            with files_named(case.subject, case.files):
                target = self._target(case)
            if not torch.isfinite(probabilities).all():
                broken.append(f"{case.subject}: {case.folder / 'image.nii'}")
                continue
            metric = LeepConditional(probabilities.shape[1], self.num_classes, IGNORE_INDEX, sync_on_compute=False)
            # an inferer may keep its result elsewhere than the network, to spare a GPU's memory
            metric = metric.to(probabilities.device)
            metric.update(probabilities, target[None].to(probabilities.device))
            self.store.write_forward(case.subject, probabilities[0], metric.joint)
        # all ranks raise together, or those without a broken case would wait for ever
        if found := sorted(line for part in self.gather(broken, "phase 1: source network") for line in part):
            raise InputError(
                "The source network gives NaN or infinite values for these volumes; look at them and its weights:",
                found,
            )

    @torch.no_grad()
    def _expectations(self, train: Sequence[PreparedCase], joint: Tensor) -> None:
        """Keeps the training cases' EEP; runs the source network where an earlier run did not and has dropped it."""
        if not self.keep_expectation:
            return
        conditional = conditional_from_joint(joint)
        missing = [case for case in self._mine(train) if not self.store.has_expectation(case.subject)]
        for case in track(missing, len(missing), "Phase 1: expected predictions"):
            expected = expected_prediction(self._probabilities(case), conditional)[0]
            with files_named(case.subject, case.files):
                affine = case.to_subject()["label"].affine
            self.store.write_expectation(case.subject, expected, affine)
        self.gather(None, "phase 1: expected predictions")

    def _probabilities(self, case: PreparedCase) -> Tensor:
        """Returns the kept source probabilities, (1, Z, X, Y, Z).

        Made again where they have been dropped, by an earlier run or by another that shares the store.
        """
        try:
            return self.store.read_probabilities(case.subject).to(self.device)[None]
        except FileNotFoundError:
            return source_probabilities(case, self.infer, self.device)

    def _target(self, case: PreparedCase) -> Tensor:
        return counted_target(case, self.use_mask, self.device)

    def _joint(self, train: Sequence[PreparedCase]) -> Tensor:
        joints = [self.store.read_joint(case.subject) for case in sorted(train, key=lambda case: case.subject)]
        metric = LeepConditional(joints[0].shape[1], self.num_classes, IGNORE_INDEX, sync_on_compute=False)
        for joint in joints:
            metric.add_joint(joint)
        return metric.joint

    @torch.no_grad()
    def _hardness(self, cases: Sequence[PreparedCase], joint: Tensor) -> None:
        conditional = conditional_from_joint(joint)
        missing = [case for case in self._mine(cases) if not self.store.has_hardness(case.subject)]
        for case in track(missing, len(missing), "Phase 1: hardness"):
            if self.store.has_hardness(case.subject):
                continue  # another run that shares the store has been faster
            probabilities = self._probabilities(case)
            with files_named(case.subject, case.files):
                target, affine = self._target(case), case.to_subject()["label"].affine
            values = hardness(probabilities, target[None], conditional, IGNORE_INDEX)[0]
            expected = expected_prediction(probabilities, conditional)[0].argmax(0)
            self.store.write_hardness(case.subject, values, expected, affine)
        self.gather(None, "phase 1: hardness")

    def _counted(self, case: PreparedCase) -> tuple[Tensor, Tensor, Tensor]:
        """Returns hardness (N,) and classes (N,) of the voxels that count, and which (X, Y, Z) these are."""
        with files_named(case.subject, [*case.files, self.store.hardness_path(case.subject)]):
            target = self._target(case).cpu()
            volume, _ = self.store.read_hardness(case.subject)
        counts = target != IGNORE_INDEX
        return volume[counts], target[counts], counts

    def _distribution(self, train: Sequence[PreparedCase], joint: Tensor) -> tuple[ClassDistribution, Tensor]:
        """Returns the values' distribution over the training cases and each class's sum of hardness, (Y,)."""
        own = ClassDistribution(self.num_classes)
        sums: dict[str, Tensor] = {}
        for case in self._mine(train):
            values, classes, _ = self._counted(case)
            own.update(self.mapping.values(values, classes, joint), classes)
            sums[case.subject] = _class_sums(values, classes, self.num_classes)
        dataset = ClassDistribution(self.num_classes)
        for part in self.gather(own, "phase 1: distribution of the hardness"):
            dataset.merge(part)
        return dataset, self._ordered_sum(sums)

    def _write_weights(
        self, cases: Sequence[PreparedCase], joint: Tensor, dataset: ClassDistribution, knowledge: float
    ) -> None:
        mine = self._mine(cases)
        for case in track(mine, len(mine), "Phase 1: risk maps"):
            values, classes, counts = self._counted(case)
            weights = torch.ones(counts.shape)  # 1 where a voxel does not count: neutral when the map is warped
            weights[counts] = self.mapping.weights(
                self.mapping.values(values, classes, joint), classes, dataset, knowledge
            )
            self.store.write_weights(case.subject, weights, case.to_subject()["label"].affine)
        self.gather(None, "phase 1: risk maps")

    def _weight_statistics(self, train: Sequence[PreparedCase]) -> tuple[Tensor, Tensor]:
        """Returns each class's sum of weights (Y,) and the histogram's counts, over the training cases."""
        sums: dict[str, Tensor] = {}
        counts = torch.zeros(len(_WEIGHT_EDGES) - 1, dtype=torch.int64)
        for case in self._mine(train):
            _, classes, counted = self._counted(case)
            volume, _ = read_volume(self.store.weight_path(case.subject))
            weights = torch.from_numpy(np.asarray(volume))[counted]
            sums[case.subject] = _class_sums(weights, classes, self.num_classes)
            counts += torch.from_numpy(np.histogram(weights.numpy(), _WEIGHT_EDGES)[0])
        return self._ordered_sum(sums), torch.stack(self.gather(counts, "phase 1: histogram of the weights")).sum(0)

    def _ordered_sum(self, own: dict[str, Tensor]) -> Tensor:
        gathered = {subject: value for part in self.gather(own, "phase 1: sums") for subject, value in part.items()}
        return torch.stack([gathered[subject] for subject in sorted(gathered)]).sum(0)


def _class_sums(values: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    return torch.bincount(classes, weights=values.double(), minlength=num_classes)
