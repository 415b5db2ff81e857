"""A map that is refreshed during training: weights from the current network's own hardness."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from riskft.compat import lazy_instance, made
from riskft.data.labels import IGNORE_INDEX
from riskft.distributed import is_first_rank
from riskft.errors import InputError
from riskft.losses.fused import blocks
from riskft.losses.length import check_length, counted, is_part
from riskft.losses.weighted import Loss, RiskWeightedLoss, Weight
from riskft.risk.distribution import BINS, ClassDistribution, float_bins
from riskft.risk.mapping import RiskMapping, source_knowledge
from riskft.risk.weighting import Normalise, PowerWeight, RankNormalise, WeightFunction

log = logging.getLogger(__name__)


class RefreshedLoss(Loss):
    """Weights voxels by the current network's hardness, h_i = -log p_i(y_i), instead of the static map.

    The hardness comes from the step's own logits (no second forward pass, no gradient) and is ranked within the
    voxel's class over the patches of recent steps. Every ``every`` steps this gives a new table of weights by class
    and hardness, with ``RiskMapping``'s safeguards: each class's mean weight over the recent steps is 1, and weights
    shrink towards 1 the less the network knows of the labels. Until step ``start``, the static map is used if there is
    one.

    Processes add up their counts for each table, so that all have the same, and before each checkpoint, which keeps
    them. Not from the paper, whose map is static.

    Args:
        loss: The loss that takes the weights.
        start: Steps (batches) with the static map, or a fraction of the run: 0.25 for a quarter.
        every: Steps between tables, or a fraction of the run: 0.0833 for a twelfth.
        memory: Number of periods of ``every`` steps that a table covers.
        normalise: ``RankNormalise``, ``QuantileNormalise`` or ``MinMaxNormalise``, within the voxel's class.
        weight: ``ExponentialWeight``, ``LinearWeight`` or ``PowerWeight``.
        balance: Divide each class's weights by their mean over the recent steps; ``gradient``: over the gradient, see
            ``RiskMapping``.
        temper: Shrink weights towards 1, w <- 1 + s (w - 1) with s = 1 - mean(h) / H(Y), clipped to [0, 1], over the
            recent steps.
        ignore_index: Label of ignored voxels.
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
        # not buffers, which DDP would overwrite with the first process's at every step
        self._windows: list[Tensor] = []
        self._settled: Tensor | None = None
        self._table: Tensor | None = None

    @property
    def needs_eep(self) -> bool:
        """Whether the inner loss needs the EEP."""
        return self.loss.needs_eep

    @property
    def needs_length(self) -> bool:
        """Whether ``start`` or ``every`` is a fraction of the run."""
        return any(map(is_part, self.given)) or super().needs_length

    def runs_for(self, batches: float) -> None:
        """Converts ``start`` and ``every`` to steps, unless a checkpoint did; warns if they are too late."""
        super().runs_for(batches)
        own = counted(self.given[0], batches), counted(self.given[1], batches, least=1)
        if self._timing is None or not self._steps:
            self._timing = own
        first, every = self._timing
        if not is_first_rank():
            return
        if self._timing != own:
            log.warning(
                "riskft.RefreshedLoss continues with the checkpoint's schedule: the static map for %d steps, then a "
                "new table every %d steps. Its options would give %d and %d in a run of this length.",
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
                else "Give fractions of the run, for example start: 0.25 and every: 0.0833, or train for longer",
            )
        else:
            static = max(first, every)
            log.info("The risk map is static for %d steps, then refreshed every %d steps.", static, every)

    def take_phase_1(self, joint: Tensor, knowledge: float) -> None:
        """Starts the inner loss."""
        self.loss.take_phase_1(joint, knowledge)

    def settle(self) -> None:
        """Sums the processes' counts since the last table, so that any process can save them."""
        self.loss.settle()
        if self._windows:
            own = self._windows[-1]
            self._windows[-1] = torch.zeros_like(own)
            self._settled = self._summed(own)

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        target: Tensor,
        weight: Weight = None,
        foreground_fraction: Tensor | None = None,
        eep: Tensor | None = None,
    ) -> Tensor:
        """Computes the inner loss with refreshed weights; see ``Loss``.

        Raises:
            InputError: If ``start`` or ``every`` is a fraction and the length of the run is unknown.
        """
        if self.training:
            if self._timing is None:
                start, every = self.given
                raise InputError(
                    f"riskft.RefreshedLoss: start: {start} and every: {every} are fractions of a run of unknown "
                    "length. Give numbers of steps, or call runs_for(batches) first."
                )
            classes = (logits if isinstance(logits, Tensor) else logits[0]).shape[1]
            weight = partial(self._refreshed, weight, classes, self._timing)
        result: Tensor = self.loss(logits, target, weight, foreground_fraction, eep)
        return result

    @torch.no_grad()
    def _refreshed(
        self, static: Weight, classes: int, timing: tuple[int, int], entropy: Tensor, target: Tensor
    ) -> Tensor | None:
        """Counts the patches' hardness; returns their weights, (B, *spatial) float32, or the static map's."""
        first, every = timing
        self._windows = [window.to(entropy.device) for window in self._windows]  # a checkpoint's are on the CPU
        if self._steps % every == 0:
            self._make_table()
            self._windows.append(torch.zeros(classes, BINS, dtype=torch.int64, device=entropy.device))
        self._steps += 1
        if self._table is not None:
            self._table = self._table.to(entropy.device)
        table = self._table if self._steps > first else None
        counts, weights = count_voxels(entropy, target, classes, self.ignore_index, table)
        self._windows[-1] += counts
        if weights is not None:
            return weights
        return static(entropy, target) if callable(static) else static

    def _make_table(self) -> None:
        """Makes the table from the full windows; the last one holds only this process's counts until now."""
        if not self._windows:
            return
        self._windows = [*self._windows[-self.memory : -1], self._summed(self._windows[-1])]
        self._settled = None
        self._table = weight_table(torch.stack(self._windows).sum(0).cpu(), self.mapping)

    def _summed(self, own: Tensor) -> Tensor:
        """Returns a window's counts over all processes, given this one's unsettled counts; all must call it."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(own)
        return own if self._settled is None else own + self._settled.to(own.device)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the checkpoint's content: steps, the recent counts, the table and its schedule."""
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
        """Continues from a checkpoint; the first process takes back its unsettled counts."""
        self._steps, self._table, self._settled = state["steps"], state["table"], state["settled"]
        if state["timing"] is not None:
            self._timing = (int(state["timing"][0]), int(state["timing"][1]))
        self._windows = list(state["windows"])
        if self._windows and dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            self._windows[-1] = torch.zeros_like(self._windows[-1])


def count_voxels(
    entropy: Tensor, target: Tensor, classes: int, ignore_index: int, table: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Counts voxels by class and bin of their hardness, and looks up their weights.

    It works in blocks, as ``loss_terms`` does, and without boolean indices, which make the host wait for the device.

    Args:
        entropy: (B, *spatial) hardness.
        target: (B, *spatial) integer classes or ``ignore_index``.
        classes: Y.
        ignore_index: Label of ignored voxels.
        table: See ``weight_table``; None to look up nothing.

    Returns:
        (Y, BINS) int32 voxels, and (B, *spatial) float32 weights or None.
    """
    values, labels = entropy.float().flatten(), target.flatten()
    counts = torch.zeros((classes + 1) * BINS, dtype=torch.int32, device=values.device)
    one = torch.ones((), dtype=torch.int32, device=values.device)
    weights = None if table is None else torch.empty_like(values)
    for block in blocks(len(values), 4, values.device):
        row = labels[block].to(torch.int32, copy=True)
        # masking is slower
        row = row.clamp_(max=classes) if ignore_index >= classes else row.masked_fill_(row == ignore_index, classes)
        cells = float_bins(values[block]).add_(row, alpha=BINS)
        counts.index_add_(0, cells, one.expand_as(cells))
        if table is not None and weights is not None:
            torch.index_select(table, 0, cells, out=weights[block])
    return counts.view(-1, BINS)[:-1], None if weights is None else weights.view(entropy.shape)


def weight_table(counts: Tensor, mapping: RiskMapping) -> Tensor:
    """Returns the weight of each class's bins from the number of voxels in them.

    Args:
        counts: (Y, BINS) int64 voxels by class and bin of their hardness.
        mapping: Options of the map.

    Returns:
        ((Y + 1) * BINS,) float32; 1 for a class without voxels, and in the last row, for ignored voxels.
    """
    recent, centres = ClassDistribution.of_counts(counts), ClassDistribution.bin_centres()
    classes = torch.arange(len(counts)).repeat_interleave(BINS)
    joint = counts.sum(1, keepdim=True).double()
    mean_hardness = float((counts * centres).sum() / joint.sum().clamp_min(1))
    knowledge = source_knowledge(joint, -mean_hardness)
    weights = mapping.weights(centres.repeat(len(counts)), classes, recent, knowledge)
    weights = torch.where(joint[classes, 0] > 0, weights, 1.0)
    return pad(weights, (0, BINS), value=1.0)
