"""Phase 1 without Lightning: makes hardness and weight volumes from prepared cases and a frozen source network."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.memory import give_back, volumes_given_back
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.progress import track
from riskft.risk.distribution import ClassDistribution
from riskft.risk.leep import conditional_from_joint, expected_empirical_prediction, hardness, label_entropy
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.ranks import ordered_sum
from riskft.risk.source_pass import SourcePass
from riskft.risk.summary import RiskSummary

log = logging.getLogger(__name__)

_WEIGHT_EDGES = np.concatenate([np.linspace(0, 4, 81), [5, 6, 8, 10, 20, 1e9]])


class RiskPhase:
    """Makes the maps of training cases and, with the same P(y|z), of other labelled cases.

    Three passes over the cases: the source network's, which gives P(y|z); the hardness pass, which gives the
    hardness's distribution over the training cases; and the weight pass. Memory holds one volume at a time. The
    processes share the cases, and sums over subjects are taken in the subjects' order, so that the result does not
    depend on the number of processes. A killed phase continues with the next subject.

    Args:
        source: The source's pass, with the store for all files.
        mapping: Options of the map.
        keep_eep: Keep the training cases' EEP, which distillation needs.
    """

    def __init__(self, source: SourcePass, mapping: RiskMapping, *, keep_eep: bool = False) -> None:
        self.source = source
        self.store, self.ranks, self.num_classes = source.store, source.ranks, source.num_classes
        self.mapping = mapping
        self.keep_eep = keep_eep

    def run(self, train: Sequence[PreparedCase], others: Sequence[PreparedCase] = ()) -> RiskSummary:
        """Makes the missing files and returns the summary.

        Args:
            train: Labelled cases that define P(y|z).
            others: Labelled cases that get maps but do not enter P(y|z), such as validation cases for display.
        """
        everyone, counted = [*train, *others], frozenset(case.subject for case in train)
        if (finished := self._finished(everyone, counted)) is not None:
            return finished
        self.store.refuse_unwritable()
        if self.ranks.rank == 0:
            self.store.write_manifests()
        self.source.run(everyone)
        joint = self.source.joint(train)
        distribution, hardness_sums = self._hardness_pass(everyone, counted, joint)
        voxels = distribution.counts.sum(1)
        leep = -float(hardness_sums.sum() / voxels.sum())
        knowledge = source_knowledge(joint, leep)
        weight_sums, weight_counts = self._weight_pass(everyone, counted, joint, distribution, knowledge)
        summary = RiskSummary(
            joint=joint,
            leep=leep,
            label_entropy=label_entropy(joint),
            knowledge=knowledge,
            class_voxels=voxels.tolist(),
            class_hardness=(hardness_sums / voxels.clamp_min(1)).tolist(),
            class_weight=(weight_sums / voxels.clamp_min(1)).tolist(),
            weight_edges=_WEIGHT_EDGES.tolist(),
            weight_counts=weight_counts.tolist(),
        )
        if self.ranks.rank == 0:
            self.store.write_summary(summary.to_json(), [case.subject for case in everyone])
        self.ranks.gather(None, "phase 1: summary")
        return summary

    def _finished(self, everyone: Sequence[PreparedCase], counted: frozenset[str]) -> RiskSummary | None:
        """Returns the summary of an earlier phase 1 if all of its files exist."""
        found = self.store.read_summary([case.subject for case in everyone])
        if self.keep_eep and not all(self.store.has_eep(subject) for subject in counted):
            found = None
        # ranks decide together, so that none skips the collectives of the others
        if not all(self.ranks.gather(found is not None, "phase 1: looking for maps")) or found is None:
            return None
        log.info("Phase 1: risk maps of %d subjects reused from %s", len(everyone), self.store.weights_folder)
        return RiskSummary.from_json(found)

    @torch.no_grad()
    def _hardness_pass(
        self, everyone: Sequence[PreparedCase], counted: frozenset[str], joint: Tensor
    ) -> tuple[ClassDistribution, Tensor]:
        """Makes the missing hardness and EEP.

        Returns:
            The distribution of the mapping's values over the training cases, and each class's sum of hardness, (Y,).
        """
        conditional = conditional_from_joint(joint)
        own = ClassDistribution(self.num_classes)
        sums: dict[str, Tensor] = {}
        mine = self.ranks.share(everyone)
        for case in track(mine, len(mine), "Phase 1: hardness"):
            in_training = case.subject in counted
            give_back()  # of the case before
            probabilities = self._needed_probabilities(case, in_training)
            if probabilities is None and not in_training:
                continue
            with volumes_given_back():  # not around the line that may run the network: it would slow it down
                volume, target = self._hardness(case, probabilities, conditional, in_training)
                if in_training:
                    values, classes = volume[target != IGNORE_INDEX], target[target != IGNORE_INDEX]
                    own.update(self.mapping.values(values, classes, joint), classes)
                    sums[case.subject] = self._class_sums(values, classes)
        gathered = self.ranks.gather((own, sums), "phase 1: hardness")
        distribution = ClassDistribution(self.num_classes)
        for part, _ in gathered:
            distribution.merge(part)
        return distribution, ordered_sum([part for _, part in gathered])

    def _needed_probabilities(self, case: PreparedCase, in_training: bool) -> Tensor | None:
        """Returns the source probabilities, (1, Z, X, Y, Z), or None if the store has everything made from them."""
        made = self.store.has_hardness(case.subject) and not self._lacks_eep(case, in_training)
        return None if made else self.source.probabilities(case)

    def _lacks_eep(self, case: PreparedCase, in_training: bool) -> bool:
        return self.keep_eep and in_training and not self.store.has_eep(case.subject)

    def _hardness(
        self, case: PreparedCase, probabilities: Tensor | None, conditional: Tensor, in_training: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns a case's hardness and classes, (X, Y, Z) each; makes it and the EEP if the store lacks them."""
        if probabilities is None:
            return self._read_hardness(case)
        target = self.source.target(case)
        affine = case.to_subject()["label"].affine
        eep = expected_empirical_prediction(probabilities, conditional)[0]
        if self._lacks_eep(case, in_training):  # before the hardness, whose writing drops the probabilities
            self.store.write_eep(case.subject, eep, affine)
        if self.store.has_hardness(case.subject):
            return self._read_hardness(case)
        expected_class = eep.argmax(0)
        del eep
        volume = hardness(probabilities, target[None], conditional, IGNORE_INDEX)[0]
        self.store.write_hardness(case.subject, volume, expected_class, affine)
        return volume.cpu(), target.cpu()

    def _read_hardness(self, case: PreparedCase) -> tuple[Tensor, Tensor]:
        with files_named(case.subject, [self.store.hardness_path(case.subject)]):
            volume, _ = self.store.read_hardness(case.subject)
        return volume, self.source.target(case).cpu()

    def _weight_pass(
        self,
        everyone: Sequence[PreparedCase],
        counted: frozenset[str],
        joint: Tensor,
        distribution: ClassDistribution,
        knowledge: float,
    ) -> tuple[Tensor, Tensor]:
        """Writes the weights of all cases.

        Returns:
            Each class's sum of weights (Y,) and the histogram's counts, over the training cases.
        """
        sums: dict[str, Tensor] = {}
        histogram = torch.zeros(len(_WEIGHT_EDGES) - 1, dtype=torch.int64)
        mine = self.ranks.share(everyone)
        with volumes_given_back():
            for case in track(mine, len(mine), "Phase 1: risk maps"):
                volume, target = self._read_hardness(case)
                inside = target != IGNORE_INDEX
                classes = target[inside]
                values = self.mapping.values(volume[inside], classes, joint)
                weights = self.mapping.weights(values, classes, distribution, knowledge)
                # ignored voxels get 1, which is neutral when the map is warped
                whole = torch.ones(target.shape).masked_scatter_(inside, weights)
                self.store.write_weights(case.subject, whole, case.to_subject()["label"].affine)
                if case.subject in counted:
                    sums[case.subject] = self._class_sums(weights, classes)
                    histogram += torch.from_numpy(np.histogram(weights.numpy(), _WEIGHT_EDGES)[0])
        gathered = self.ranks.gather((sums, histogram), "phase 1: risk maps")
        return ordered_sum([part for part, _ in gathered]), torch.stack([part for _, part in gathered]).sum(0)

    def _class_sums(self, values: Tensor, classes: Tensor) -> Tensor:
        return torch.bincount(classes, weights=values.double(), minlength=self.num_classes)
