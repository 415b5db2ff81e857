"""A scan's features: class-wise means over the deepest layer of a network."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

from riskft.source.resize import CONVOLUTIONS


class FeatureMeans:
    """Sums the outputs of a network's deepest convolution over windows, weighted by each class's probability.

    The deepest is the last of those with the fewest voxels; in a network that never reduces its resolution, it is the
    one before the head.
    """

    def __init__(self) -> None:
        self._deepest: Tensor | None = None
        self._sums: Tensor | float = 0.0  # (K, F)
        self._mass: Tensor | float = 0.0  # (K,)

    @contextmanager
    def watching(self, network: nn.Module, head: Collection[str]) -> Iterator[None]:
        """Keeps the deepest output of each forward pass of the network; ``head`` names the layers to leave out."""
        layers = {name: module for name, module in network.named_modules() if isinstance(module, CONVOLUTIONS)}
        outputs = {name for name in layers if any(name == one or name.startswith(f"{one}.") for one in head)}
        watched = layers.keys() - outputs or layers.keys()
        handles = [layers[name].register_forward_hook(self._keep) for name in watched]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim != 5:
            return
        if self._deepest is None or output.shape[2:].numel() <= self._deepest.shape[2:].numel():
            self._deepest = output

    @torch.no_grad()
    def add(self, probabilities: Tensor) -> None:
        """Adds the windows of the last forward pass, given their class probabilities, (B, K, *spatial)."""
        features, self._deepest = self._deepest, None
        if features is None:
            return
        x, y, z = features.shape[2:]
        share = adaptive_avg_pool3d(probabilities, (x, y, z)).double()
        self._sums = self._sums + torch.einsum("bk...,bf...->kf", share, features.double())
        self._mass = self._mass + share.sum((0, 2, 3, 4))

    def vector(self) -> npt.NDArray[np.float64]:
        """Returns the class-wise means one after another, (K * F,); a class without mass has the mean over all."""
        if not isinstance(self._sums, Tensor) or not isinstance(self._mass, Tensor):
            return np.zeros(0)
        mean = self._sums.sum(0) / self._mass.sum()
        found = torch.where(self._mass[:, None] > 0, self._sums / self._mass[:, None].clamp_min(1e-300), mean)
        vector: npt.NDArray[np.float64] = found.flatten().cpu().numpy()
        return vector
