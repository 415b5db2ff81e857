"""Phase 1 without Lightning: makes hardness and weight volumes from prepared cases and a frozen source network."""

import logging
from collections.abc import Iterator, Sequence

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.io.memory import BLOCK
from riskft.data.io.volumes import Affine
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.progress import track
from riskft.risk.distribution import BINS, ClassDistribution
from riskft.risk.leep import conditional_from_joint, expected_empirical_prediction, hardness_of, label_entropy
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.ranks import ordered_sum
from riskft.risk.source_pass import SourcePass
from riskft.risk.summary import RiskSummary

log = logging.getLogger(__name__)

_Hardness = tuple[Tensor, Tensor, Affine]
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
        """Makes the missing files of the labelled cases and returns the summary.

        Only the training cases define P(y|z); the others get maps for display.
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
        """Makes missing hardness and EEP; returns the values' distribution, and each class's sum of hardness, (Y,)."""
        conditional = conditional_from_joint(joint)
        own = ClassDistribution(self.num_classes)
        sums: dict[str, Tensor] = {}
        mine = self.ranks.share(everyone)
        for case in track(mine, len(mine), "Phase 1: hardness"):
            in_training = case.subject in counted
            lacks_eep = self.keep_eep and in_training and not self.store.has_eep(case.subject)
            made = None
            if lacks_eep or not self.store.has_hardness(case.subject):
                made = self._make_hardness(case, conditional, lacks_eep)
            if not in_training:
                continue
            volume, target, _ = made or self._read_hardness(case)
            sums[case.subject] = self._count(volume, target, joint, own)
        gathered = self.ranks.gather((own, sums), "phase 1: hardness")
        distribution = ClassDistribution(self.num_classes)
        for part, _ in gathered:
            distribution.merge(part)
        return distribution, ordered_sum([part for _, part in gathered])

    def _make_hardness(self, case: PreparedCase, conditional: Tensor, keep_eep: bool) -> _Hardness:
        """Writes EEP, if asked for, and hardness, if missing; returns hardness, classes (X, Y, Z) and their affine."""
        target, affine = self.source.target(case), nib.load(case.folder / "label.nii").affine
        volume, expected_class = torch.empty_like(target, dtype=torch.float32), torch.empty_like(target)
        eep = torch.empty(self.num_classes if keep_eep else 0, *target.shape, dtype=torch.float16)
        for here, planes, label in self.source.parts(case, target):
            own = expected_empirical_prediction(planes.double(), conditional)
            if keep_eep:
                eep[:, here] = own.movedim(1, 0).cpu()
            expected_class[here] = own.max(1).indices.to("cpu", torch.uint8)  # argmax takes ten times as long
            volume[here] = hardness_of(own, label, IGNORE_INDEX).cpu()
        if keep_eep:  # before the hardness, because writing that deletes the probabilities
            self.store.write_eep(case.subject, eep, affine)
        if self.store.has_hardness(case.subject):
            return self._read_hardness(case)
        self.store.write_hardness(case.subject, volume, expected_class, affine)
        return volume, target, affine

    def _read_hardness(self, case: PreparedCase) -> _Hardness:
        with files_named(case.subject, [self.store.hardness_path(case.subject)]):
            volume, affine = self.store.read_hardness(case.subject)
        return volume, self.source.target(case), affine

    def _weight_pass(
        self,
        everyone: Sequence[PreparedCase],
        counted: frozenset[str],
        joint: Tensor,
        distribution: ClassDistribution,
        knowledge: float,
    ) -> tuple[Tensor, Tensor]:
        """Writes all weights; returns each class's sum (Y,) and the histogram's counts, over the training cases."""
        found: dict[str, Tensor] = {}
        weighting = self.mapping.weighting(distribution, knowledge)
        by_volume = self.mapping.scope == "volume"
        if weighting.table is not None and not by_volume:
            found["all"] = self._statistics(weighting.table, *_cells(distribution))
        mine = self.ranks.share(everyone)
        for case in track(mine, len(mine), "Phase 1: risk maps"):
            volume, target, affine = self._read_hardness(case)
            in_training = case.subject in counted
            if by_volume:
                own = ClassDistribution(self.num_classes)
                self._count(volume, target, joint, own)
                weighting = self.mapping.weighting(own, knowledge)
                if weighting.table is not None and in_training:
                    found[case.subject] = self._statistics(weighting.table, *_cells(own))
            whole = torch.ones(target.numel())  # 1 for ignored voxels, which is neutral when the map is warped
            parts = []
            for where, hardness, classes in _counted(volume, target):
                weights = weighting(self.mapping.values(hardness, classes, joint), classes)
                whole[where] = weights
                if weighting.table is None and in_training:
                    parts.append(self._statistics(weights, classes))
            if weighting.table is None and in_training:
                found[case.subject] = torch.stack(parts).sum(0)
            self.store.write_weights(case.subject, whole.view(*target.shape[::-1]).permute(2, 1, 0), affine)
        total = ordered_sum(self.ranks.gather(found, "phase 1: risk maps"))
        return total[: self.num_classes], total[self.num_classes + 1 : -1].long()

    def _count(self, volume: Tensor, target: Tensor, joint: Tensor, into: ClassDistribution) -> Tensor:
        """Adds the mapping's values of a volume to a distribution; returns each class's sum of hardness, (Y,)."""
        sums = torch.zeros(self.num_classes, dtype=torch.float64)
        for _, hardness, classes in _counted(volume, target):
            into.update(self.mapping.values(hardness, classes, joint), classes)
            sums += torch.bincount(classes, weights=hardness.double(), minlength=self.num_classes)
        return sums

    def _statistics(self, weights: Tensor, classes: Tensor, counts: Tensor | None = None) -> Tensor:
        """Returns each class's sum of weights, and the histogram's counts, including those below and above its edges.

        Args:
            weights: (N,).
            classes: (N,) int64.
            counts: Voxels per weight, (N,) float64; None for one each.
        """
        values, edges = weights.double(), torch.from_numpy(_WEIGHT_EDGES)
        counts = torch.ones_like(values) if counts is None else counts
        bins = torch.bucketize(values, edges, right=True)
        sums = torch.bincount(classes, weights=values * counts, minlength=self.num_classes)
        return torch.cat([sums, torch.bincount(bins, weights=counts, minlength=len(edges) + 1)])


def _cells(distribution: ClassDistribution) -> tuple[Tensor, Tensor]:
    """Returns the class of each cell, and how many voxels it has, (Y * BINS,) float64."""
    classes = torch.arange(distribution.num_classes).repeat_interleave(BINS)
    return classes, distribution.counts.flatten().double()


def _counted(volume: Tensor, target: Tensor) -> Iterator[tuple[slice | Tensor, Tensor, Tensor]]:
    """Yields the voxels of (X, Y, Z) that are not ignored, in blocks: places, values and classes, int64.

    The places are indices into the flattened volume with x fastest, as in NIfTI files.
    """
    # views, if the volumes are read from files
    values, labels = (each.permute(2, 1, 0).reshape(-1) for each in (volume, target))
    for start in range(0, len(labels), BLOCK):
        where: slice | Tensor = slice(start, start + BLOCK)
        if labels[where].max() == IGNORE_INDEX:
            where = (labels[where] != IGNORE_INDEX).nonzero().flatten() + start
        yield where, values[where], labels[where].long()
