"""Sliding-window inference in parts, so that memory need not hold the logits of a whole volume."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as nnf
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import BlendMode, PytorchPadMode, ensure_tuple_rep, fall_back_tuple
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def logits_in_parts(inferer: Inferer, image: Tensor, network: Network) -> Iterator[Tensor]:
    """Yields an inferer's result for an image, in parts that follow one another along x.

    MONAI's ``SlidingWindowInferer`` keeps the whole result until its last window. Here, planes that no later window
    reaches are yielded and freed. The windows, their order and the sums are MONAI's, so the result is equal to the last
    bit, except that a single window is not multiplied and divided by its weights. Another inferer's result is a single
    part.

    Args:
        inferer: Any inferer.
        image: (1, C, X, Y, Z).
        network: Windows (B, C, x, y, z) -> logits (B, K, x, y, z).

    Yields:
        Logits (1, K, depth, Y, Z). Use a part before you ask for the next, which may overwrite it.
    """
    if type(inferer) is not SlidingWindowInferer or inferer.with_coord or inferer.buffer_steps or inferer.progress:
        yield inferer(image, network)
        return
    shape = tuple(image.shape[2:])
    roi = fall_back_tuple(inferer.roi_size, shape)
    missing = [max(window - edge, 0) for window, edge in zip(roi, shape, strict=True)]
    before = [edge // 2 for edge in missing]
    if any(missing):
        sides = [
            side for first, both in zip(before[::-1], missing[::-1], strict=True) for side in (first, both - first)
        ]
        image = nnf.pad(image, sides, mode=PytorchPadMode(inferer.padding_mode).value, value=inferer.cval)
    x, y, z = (slice(first, first + edge) for first, edge in zip(before, shape, strict=True))
    for part in _parts(inferer, image, roi, network):
        yield part[:, :, x, y, z]  # along x, only an image with a single part is padded


def _parts(inferer: SlidingWindowInferer, image: Tensor, roi: tuple[int, ...], network: Network) -> Iterator[Tensor]:
    shape, overlap = tuple(image.shape[2:]), ensure_tuple_rep(inferer.overlap, 3)
    steps = [
        window if window == edge else max(int(window * (1 - shared)), 1)
        for window, edge, shared in zip(roi, shape, overlap, strict=True)
    ]
    windows = dense_patch_slices(shape, roi, steps)  # x changes last
    device, count = inferer.sw_device or image.device, inferer.sw_batch_size
    if len(windows) == 1:
        yield network(image.to(device))
        return
    weight = inferer.roi_weight_map
    if weight is None:
        weight = compute_importance_map(roi, inferer.mode, inferer.sigma_scale, device, image.dtype)
    even = inferer.roi_weight_map is None and inferer.mode == BlendMode.CONSTANT
    planes: _Planes | None = None
    for first in range(0, len(windows), count):
        batch = windows[first : first + count]
        outputs = network(torch.cat([image[:, :, x, y, z] for x, y, z in batch]).to(device))
        if not even:
            outputs *= weight.to(outputs.device)
        if planes is None:
            large = inferer.cpu_thresh is not None and image.shape[2:].numel() > inferer.cpu_thresh
            place = inferer.device or ("cpu" if large else image.device)
            planes = _Planes((roi[0], outputs.shape[1], *shape[1:]), weight.to(place, image.dtype))
        for output, window in zip(outputs.to(place), batch, strict=True):
            yield from planes.until(window[0].start)
            planes.add(output, window)
    if planes is not None:
        yield from planes.until(shape[0])


class _Planes:
    """The planes that later windows reach, in a ring buffer: plane x is at x modulo the depth of a window.

    Args:
        shape: (x of a window, K, Y, Z).
        weight: The weights of a window's voxels, (x, y, z).
    """

    def __init__(self, shape: tuple[int, ...], weight: Tensor) -> None:
        self.weight = weight
        self.sums, self.weights = weight.new_zeros(shape), weight.new_zeros(shape[0], 1, *shape[2:])
        self.done = 0

    def add(self, output: Tensor, window: tuple[slice, ...]) -> None:
        """Adds a window's weighted logits, (K, x, y, z)."""
        x, y, z = window
        for here, part in self._places(x.start, x.stop):
            self.sums[here, :, y, z] += output[:, part].movedim(1, 0)
            self.weights[here, 0, y, z] += self.weight[part]

    def until(self, stop: int) -> Iterator[Tensor]:
        """Yields the means of the planes before ``stop``, (1, K, depth, Y, Z), and frees them."""
        for here, _ in self._places(self.done, stop):
            self.sums[here] /= self.weights[here]
            yield self.sums[here].movedim(0, 1)[None]
            self.sums[here], self.weights[here] = 0, 0
        self.done = stop

    def _places(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Yields the ring's slices that hold the planes from ``start`` to ``stop``, and the planes, from ``start``."""
        depth, place = len(self.sums), start
        while place < stop:
            length = min(stop - place, depth - place % depth)
            yield slice(place % depth, place % depth + length), slice(place - start, place - start + length)
            place += length
