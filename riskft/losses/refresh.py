"""A map that does not go stale: weights from the hardness of the network in training."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor

from riskft.compat import lazy_instance, made
from riskft.data.labels import IGNORE_INDEX
from riskft.distributed import is_first_rank
from riskft.errors import InputError
from riskft.losses.length import check_length, counted, is_part
from riskft.losses.weighted import Loss, RiskWeightedLoss, without_channel
from riskft.risk.distribution import BINS, ClassDistribution
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.weighting import Normalise, PowerWeight, RankNormalise, WeightFunction

log = logging.getLogger(__name__)


class RefreshedLoss(Loss):
    """Weights voxels by the hardness of the network as it is now, h_i = -log p_i(y_i), in place of the static map.

    The hardness of a patch is taken from the step's own logits (no second forward pass, no gradient through it) and
    ranked among the voxels of the same class in the patches of the recent steps. Every ``every`` steps these give a
    new table of weights by class and hardness, with ``RiskMapping``'s safeguards: each class's mean weight over the
    recent steps is 1, and weights are drawn towards 1 by what the network does not know of the labels. Until step
    ``start`` the static map is used where one is attached.

    Processes count their own voxels and add these up whenever a table is made, so that all have the same one, and
    before a checkpoint, which keeps what has been counted. Not stated by the paper, whose map is static.

    Args:
        loss: The loss that takes the weights.
        start: Steps (batches) that are weighted by the static map; 0.25 for a quarter of the run's.
        every: Steps between one table and the next, or a part of the run's: 0.0833 for a twelfth.
        memory: Tables look back on so many times ``every`` steps.
        normalise: ``RankNormalise``, ``QuantileNormalise`` or ``MinMaxNormalise``, inside the voxel's class.
        weight: ``ExponentialWeight``, ``LinearWeight`` or ``PowerWeight``.
        balance: Divide each class's weights by their mean over the recent steps; ``gradient``: over the gradient, see
            ``RiskMapping``.
        temper: Shrink weights towards 1, w <- 1 + s (w - 1) with s = 1 - mean(h) / H(Y), clipped to [0, 1], over the
            recent steps.
        ignore_index: Label of voxels that count nowhere.
    """

    def __init__(
        self,
        loss: Loss = lazy_instance(RiskWeightedLoss),  # noqa: B008
        start: int | float = 0.25,
        every: int | float = 0.0833,
        memory: int = 3,
        normalise: Normalise = lazy_instance(RankNormalise),  # noqa: B008
        weight: WeightFunction = lazy_instance(PowerWeight),  # noqa: B008
        balance: bool | Literal["gradient"] = True,
        temper: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        check_length("start", start, least=0)
        check_length("every", every, least=1)
        if memory < 1:
            raise InputError(f"Expected argument `memory` to be at least 1, but got {memory}")
        self.loss = made(loss)
        self.given, self.memory = (start, every), memory
        self._timing = None if self.needs_length else (int(start), int(every))
        self.mapping = RiskMapping(made(normalise), "class", "hardness", made(weight), balance=balance, temper=temper)
        self.ignore_index = ignore_index
        self._steps = 0
        # no buffers, which DDP would overwrite with the first process's at every step
        self._windows: list[Tensor] = []
        self._settled: Tensor | None = None
        self._table: Tensor | None = None

    @property
    def needs_eep(self) -> bool:
        """Whether the loss inside needs the EEP."""
        return self.loss.needs_eep

    @property
    def needs_length(self) -> bool:
        """Whether ``start`` or ``every`` is a part of the run."""
        return any(map(is_part, self.given)) or super().needs_length

    def runs_for(self, batches: float) -> None:
        """Settles ``start`` and ``every`` in steps, unless a checkpoint has; warns if they come too late."""
        super().runs_for(batches)
        own = counted(self.given[0], batches), counted(self.given[1], batches, least=1)
        if self._timing is None or not self._steps:
            self._timing = own
        first, every = self._timing
        if not is_first_rank():
            return
        if self._timing != own:
            log.warning(
                "riskft.RefreshedLoss goes on as the checkpoint has it: the static map for %d steps, then a new table "
                "every %d steps. By its options it would be %d and %d in a run of this length.",
                *(*self._timing, *own),
            )
        if max(first, every) >= batches:
            parts = all(map(is_part, self.given))
            log.warning(
                "riskft.RefreshedLoss never refreshes: the run has %d steps, and the first refreshed map comes after "
                "%d (start: %s, every: %s). %s (trainer.max_epochs, data.patches_per_volume).",
                *(batches, max(first, every), *self.given),
                "Train for longer"
                if parts
                else "Give parts of the run, for example start: 0.25 and every: 0.0833, or train for longer",
            )
        else:
            static = max(first, every)
            log.info("The risk map is static for %d steps, then it is refreshed every %d steps.", static, every)

    def start(self, joint: Tensor, knowledge: float) -> None:
        """Hands on to the loss inside."""
        self.loss.start(joint, knowledge)

    def settle(self) -> None:
        """Adds up what the processes have counted since the last table, so that each of them could write it down."""
        self.loss.settle()
        if self._windows:
            own = self._windows[-1]
            self._windows[-1] = torch.zeros_like(own)
            self._settled = self._summed(own)

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        weight: Tensor | None = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss inside with refreshed weights; see ``Loss``."""
        fresh = self._refreshed(logits if isinstance(logits, Tensor) else logits[0], target)
        weight = weight if fresh is None else fresh
        result: Tensor = self.loss(logits, target, weight, foreground_fraction, eep)
        return result

    @torch.no_grad()
    def _refreshed(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Counts the patches' hardness; returns their weights, (B, *spatial) float32, or None before ``start``."""
        target = without_channel(target, logits, "target").long()
        if not self.training:
            return None
        if self._timing is None:
            start, every = self.given
            raise InputError(
                f"riskft.RefreshedLoss: start: {start} and every: {every} are parts of a run whose length it was not "
                "told. Give numbers of steps, or call runs_for(batches) first."
            )
        first, every = self._timing
        known = target != self.ignore_index
        hardness = nnf.cross_entropy(logits.float(), target, ignore_index=self.ignore_index, reduction="none")
        # one index for class and bin; ignored voxels go to a last one, which sums leave out without a synchronisation
        cells = torch.where(known, target * BINS + ClassDistribution.bin_of(hardness), logits.shape[1] * BINS)
        self._windows = [window.to(logits.device) for window in self._windows]  # those of a checkpoint are not there
        if self._steps % every == 0:
            self._make_table(logits.shape[1])
            self._windows.append(torch.zeros(logits.shape[1] * BINS + 1, dtype=torch.int64, device=logits.device))
        self._windows[-1].index_add_(0, cells.flatten(), torch.ones_like(cells.flatten()))
        self._steps += 1
        if self._steps <= first or self._table is None:
            return None
        self._table = self._table.to(logits.device)
        return self._table[cells]

    def _make_table(self, classes: int) -> None:
        """Makes the table of the windows that are full, the last of which is this process's alone until now."""
        if not self._windows:
            return
        self._windows = [*self._windows[-self.memory : -1], self._summed(self._windows[-1])]
        self._settled = None
        counts = torch.stack(self._windows).sum(0)[:-1].view(classes, BINS)
        self._table = weight_table(counts.cpu(), self.mapping)

    def _summed(self, own: Tensor) -> Tensor:
        """Returns a window's counts of all processes, given this one's that are not settled; all must call it."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(own)
        return own if self._settled is None else own + self._settled.to(own.device)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns what checkpoints keep: steps, the recent steps' counts, the table, and when it is refreshed."""
        windows = [window.cpu() for window in self._windows]
        settled = None if self._settled is None else self._settled.cpu()
        timing = None if self._timing is None else list(self._timing)
        return {
            "steps": self._steps,
            "windows": windows,
            "settled": settled,
            "table": self._table,
            "timing": timing,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint: what the first process had not settled then is the first process's again."""
        self._steps, self._table, self._settled = state["steps"], state["table"], state["settled"]
        if state["timing"] is not None:
            self._timing = (int(state["timing"][0]), int(state["timing"][1]))
        self._windows = list(state["windows"])
        if self._windows and dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            self._windows[-1] = torch.zeros_like(self._windows[-1])


def weight_table(counts: Tensor, mapping: RiskMapping) -> Tensor:
    """Makes the weights of each class's bins from how many voxels are in them.

    Args:
        counts: (Y, BINS) int64 voxels by class and bin of their hardness.
        mapping: Options of the map.

    Returns:
        (Y * BINS + 1,) float32; 1 for a class without voxels, and for the last entry, that of ignored voxels.
    """
    recent, centres = ClassDistribution.of_counts(counts), ClassDistribution.bin_centres()
    classes = torch.arange(len(counts)).repeat_interleave(BINS)
    joint = counts.sum(1, keepdim=True).double()
    mean_hardness = float((counts * centres).sum() / joint.sum().clamp_min(1))
    knowledge = source_knowledge(joint, -mean_hardness)
    weights = mapping.weights(centres.repeat(len(counts)), classes, recent, knowledge)
    weights = torch.where(joint[classes, 0] > 0, weights, 1.0)
    return torch.cat([weights, torch.ones(1)])
