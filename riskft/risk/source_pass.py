"""The frozen source's single pass over the cases: each case's part of P(y, z), and its probabilities until used."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from riskft.data.io.damage import files_named
from riskft.data.labels import IGNORE_INDEX
from riskft.data.prepare.cache import PreparedCase
from riskft.errors import InputError
from riskft.progress import track
from riskft.risk.forward import Infer, counted_target, source_parts
from riskft.risk.leep import joint_mass
from riskft.risk.ranks import Ranks
from riskft.risk.store import RiskStore


class SourcePass:
    """Runs the source once over each volume and keeps its output in the store.

    The processes share the cases; memory holds one volume at a time, and only a part of its probabilities. A killed
    pass continues with the next case.

    Args:
        store: Store for the files.
        infer: Gives the source's probabilities of an image, see ``Infer``.
        num_classes: |Y|.
        use_mask: Ignore voxels outside the body.
        device: Device of the computation.
        ranks: This process and the others.
    """

    def __init__(
        self,
        store: RiskStore,
        infer: Infer,
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

        Raises InputError if a file is damaged, or the source gives NaN or infinite values.
        """
        missing = [case for case in self.ranks.share(cases) if not self.store.has_forward(case.subject)]
        broken: list[str] = []
        for case in track(missing, len(missing), "Phase 1: source network"):
            if self.store.has_forward(case.subject):
                continue  # another run that shares the store was faster
            joints: list[Tensor] = []
            try:
                target = self.target(case)
                self.store.write_probabilities(case.subject, self._counted(case, target, joints), len(target))
            except FloatingPointError:
                broken.append(f"{case.subject}: {case.folder / 'image.nii'}")
            else:
                self.store.write_joint(case.subject, torch.stack(joints).sum(0))
        # all ranks raise together; otherwise those without a broken case would wait forever
        gathered = self.ranks.gather(broken, "phase 1: source network")
        if found := sorted(line for part in gathered for line in part):
            raise InputError(
                "The source network gives NaN or infinite values for these volumes; check them and its weights:",
                found,
            )

    def _counted(self, case: PreparedCase, target: Tensor, joints: list[Tensor]) -> Iterator[Tensor]:
        """Yields the source's probabilities, (depth, |Z|, Y, Z), and appends the joint of each part to ``joints``.

        Raises:
            FloatingPointError: If they are not finite.
            ValueError: If their shape is not the target's.
        """
        done = 0
        for planes in source_parts(case, self.infer, self.device):
            if not torch.isfinite(planes.sum()):
                raise FloatingPointError
            # an inferer may keep its result on another device than the network, to save GPU memory
            own = target[done : (done := done + len(planes))].contiguous().to(planes.device)
            joints.append(joint_mass(planes, own, self.num_classes, IGNORE_INDEX))
            yield planes
        if done < len(target):
            raise ValueError(f"Expected source probabilities of {len(target)} planes along x, but got {done}")

    def joint(self, cases: Sequence[PreparedCase]) -> Tensor:
        """Returns the unnormalised P(y, z) of cases after ``run``, (Y, Z) float64."""
        joints = [self.store.read_joint(case.subject) for case in sorted(cases, key=lambda case: case.subject)]
        return torch.stack(joints).sum(0)

    def parts(self, case: PreparedCase, target: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yields a case's source probabilities part by part; runs the source again if another run dropped them.

        Each part is a slice along x, its probabilities (depth, |Z|, Y, Z) and its classes (depth, Y, Z), both on the
        device.
        """
        try:
            kept = self.store.read_probabilities(case.subject)
        except FileNotFoundError:
            kept = source_parts(case, self.infer, self.device)
        done = 0
        for planes in kept:
            here = slice(done, done := done + len(planes))
            yield here, planes.to(self.device), target[here].contiguous().to(self.device)

    def target(self, case: PreparedCase) -> Tensor:
        """Returns the classes of a case's voxels, see ``counted_target``."""
        with files_named(case.subject, case.files):
            return counted_target(case, self.use_mask)

    def drop(self, cases: Sequence[PreparedCase]) -> None:
        """Removes the stored probabilities of cases that will not be mapped."""
        for case in self.ranks.share(cases):
            self.store.drop_probabilities(case.subject)
