"""L2-SP: weight decay towards the source's weights, not towards 0."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from riskft.errors import InputError
from riskft.training.module import RiskModule


class L2SP(Callback):
    """Pulls the backbone's weights towards the source's (Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483).

    Each optimizer step is preceded by w <- w - lr * alpha * (w - w_source): AdamW's decoupled weight decay, but towards
    the source. As it is not part of the loss, neither gradient clipping nor an adaptive optimizer rescales it. With
    plain SGD it equals the penalty alpha/2 |w - w_source|^2. The head and other new weights are exempt. Over a run, a
    weight without gradient loses the fraction 1 - exp(-alpha * sum of learning rates) of its distance to the source,
    so set alpha to at least about 1 / (mean learning rate * steps). The optimizer's own weight decay, towards 0, stays
    on.

    Args:
        alpha: Strength of the pull; 0 turns it off.
    """

    def __init__(self, alpha: float = 5.0) -> None:
        super().__init__()
        if alpha < 0:
            raise InputError(f"Expected argument `alpha` to be at least 0, but got {alpha}")
        self.alpha = alpha
        self._source: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stores the starting weights, unless a resumed run's checkpoint holds them."""
        if not isinstance(pl_module, RiskModule) or pl_module.adaptation is None:
            raise InputError("riskft.L2SP needs a riskft.RiskModule with a source: set model.source.checkpoint.")
        new = {name for name, _, status in pl_module.adaptation.rows if status == "new"}
        pulled = {name: value for name, value in backbone(pl_module).items() if name not in new}
        start = self._source or {name: value.detach().clone() for name, value in pulled.items()}
        self._source = {name: value.to(pl_module.device) for name, value in start.items()}

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Pulls the weights towards the source's."""
        if not isinstance(pl_module, RiskModule) or not self.alpha:
            return
        names = {id(value): name for name, value in backbone(pl_module).items()}
        for group in optimizer.param_groups:
            # a step must not overshoot the source, however large the learning rate
            part = min(1.0, float(group["lr"]) * self.alpha)
            for value in group["params"]:
                source = self._source.get(names.get(id(value), ""))
                if source is not None and value.requires_grad:
                    value.lerp_(source, part)

    def state_dict(self) -> dict[str, Any]:
        """Returns the starting weights, which a resumed run cannot recover from its own."""
        return {"source": {name: value.cpu() for name, value in self._source.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the starting weights."""
        self._source = dict(state_dict["source"])


def backbone(module: RiskModule) -> dict[str, nn.Parameter]:
    """Returns the network's parameters outside the head, by name."""
    head = tuple(f"{name}." for name in module.head)
    return {name: value for name, value in module.network.named_parameters() if not name.startswith(head)}
