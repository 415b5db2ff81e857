"""The frozen source's single pass over the cases: each case's part of P(y, z), and its probabilities until used."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.progress import track
from riskft.risk.forward import counted_target, source_probabilities
from riskft.risk.leep import LeepConditional
from riskft.risk.ranks import Ranks
from riskft.risk.store import RiskStore


class SourcePass:
    """Runs the source once over each volume and keeps its output in the store.

    The processes share the cases; memory holds one volume at a time. A killed pass continues with the next case.

    Args:
        store: Store for the files.
        infer: (1, C, X, Y, Z) image -> (1, |Z|, X, Y, Z) source probabilities.
        num_classes: |Y|.
        use_mask: Ignore voxels outside the body.
        device: Device of the computation.
        ranks: This process and the others.
    """

    def __init__(
        self,
        store: RiskStore,
        infer: Callable[[Tensor], Tensor],
        num_classes: int,
        *,
        use_mask: bool = False,
        device: torch.device | str = "cpu",
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> None:
        self.store = store
        self.infer = infer
        self.num_classes = num_classes
        self.use_mask = use_mask
        self.device = torch.device(device)
        self.ranks = ranks

    @torch.no_grad()
    def run(self, cases: Sequence[PreparedCase]) -> None:
        """Runs the source over the labelled cases that are not in the store yet.

        Raises:
            InputError: If a file is damaged, or the source gives NaN or infinite values.
        """
        missing = [case for case in self.ranks.share(cases) if not self.store.has_forward(case.subject)]
        broken: list[str] = []
        for case in track(missing, len(missing), "Phase 1: source network"):
            if self.store.has_forward(case.subject):
                continue  # another run that shares the store was faster
            probabilities = source_probabilities(case, self.infer, self.device)
            target = self.target(case)
            if not torch.isfinite(probabilities).all():
                broken.append(f"{case.subject}: {case.folder / 'image.nii'}")
                continue
            metric = LeepConditional(probabilities.shape[1], self.num_classes, IGNORE_INDEX, sync_on_compute=False)
            # an inferer may keep its result on another device than the network, to save GPU memory
            metric = metric.to(probabilities.device)
            metric.update(probabilities, target[None].to(probabilities.device))
            self.store.write_forward(case.subject, probabilities[0], metric.joint)
        # all ranks raise together; otherwise those without a broken case would wait forever
        gathered = self.ranks.gather(broken, "phase 1: source network")
        if found := sorted(line for part in gathered for line in part):
            raise InputError(
                "The source network gives NaN or infinite values for these volumes; check them and its weights:",
                found,
            )

    def joint(self, cases: Sequence[PreparedCase]) -> Tensor:
        """Returns the unnormalised P(y, z) of cases after ``run``, (Y, Z) float64."""
        joints = [self.store.read_joint(case.subject) for case in sorted(cases, key=lambda case: case.subject)]
        metric = LeepConditional(joints[0].shape[1], self.num_classes, IGNORE_INDEX, sync_on_compute=False)
        for joint in joints:
            metric.add_joint(joint)
        return metric.joint

    def probabilities(self, case: PreparedCase) -> Tensor:
        """Returns the source probabilities of a case, (1, Z, X, Y, Z).

        Runs the source again if another run dropped them.
        """
        try:
            kept = self.store.read_probabilities(case.subject)[None]
        except FileNotFoundError:
            kept = source_probabilities(case, self.infer, self.device)
        return kept.to(self.device)  # an inferer may leave its result on the CPU

    def target(self, case: PreparedCase) -> Tensor:
        """Returns the classes of a case's voxels, see ``counted_target``."""
        with files_named(case.subject, case.files):
            return counted_target(case, self.use_mask, self.device)

    def drop(self, cases: Sequence[PreparedCase]) -> None:
        """Removes the stored probabilities of cases that will not be mapped."""
        for case in self.ranks.share(cases):
            self.store.drop_probabilities(case.subject)
