"""Normalises a scanner's grey values for a network. Each method is a class with its options."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.errors import InputError
from riskft.files import without_addresses


class Intensity(ABC):
    """Normalises the grey values of one preprocessed image."""

    @abstractmethod
    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises an image.

        Args:
            image: (C, X, Y, Z) float32, resampled and cropped. Usually x is fastest in memory, as in files.
            inside: (C, X, Y, Z) bool, each channel's body mask.

        Returns:
            (C, X, Y, Z) float32, a new tensor.
        """

    def in_order(self, image: Tensor, inside: Tensor, levels: Sequence[bool]) -> Tensor:
        """Normalises an image so that grey levels keep their order.

        Override it if ``__call__`` gives voxels outside the body another value than they would get inside.

        Args:
            image: See ``__call__``.
            inside: See ``__call__``.
            levels: For each channel, whether its background is one of the scan's grey levels, such as air; see
                ``riskft.data.prepare.background``.

        Returns:
            (C, X, Y, Z) float32, a new tensor.
        """
        return self(image, inside)

    def describe(self) -> dict[str, object]:
        """Returns class and options as plain values, for the fingerprint."""
        options = {key: without_addresses(str(value)) for key, value in vars(self).items() if not key.startswith("_")}
        return {"class": type(self).__name__, **options}


@dataclass(frozen=True)
class ZScoreIntensity(Intensity):
    """Mean 0 and standard deviation 1, per channel.

    Args:
        masked: Compute both over the body's voxels. The background of a skull-stripped image becomes 0; a background
            that is one of the scan's grey levels (a CT's air) is normalised like the body and clipped to its range.
            With false, and if the body has a single value as in a mask, the whole volume counts.
    """

    masked: bool = True

    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises as the base class says; a constant channel becomes 0."""
        return zscore(image, inside if self.masked else torch.ones_like(inside))

    def in_order(self, image: Tensor, inside: Tensor, levels: Sequence[bool]) -> Tensor:
        """Normalises as the base class says."""
        result = self(image, inside)
        for channel, mask in enumerate(inside):
            if self.masked and levels[channel] and (mask.sum() > 1) and not mask.all():
                found = _within(result[channel], mask)
                low, high = found.min().item(), found.max().item()
                if low == high:  # a mask: body and background are its two values
                    result[channel] = zscore(image[[channel]], torch.ones_like(inside[[channel]]))[0]
                else:
                    _standardise(image[channel], *_moments(_within(image[channel], mask)), out=result[channel])
                    result[channel].clamp_(low, high)
        return result


@dataclass(frozen=True)
class PercentileIntensity(Intensity):
    """Maps two percentiles to 0 and 1 and clips values beyond them, per channel.

    The percentiles are those of the whole volume after resampling and cropping, background included, so they depend on
    the crop and on the background's share of the scan.

    Args:
        low: Percentile that becomes 0.
        high: Percentile that becomes 1.
    """

    low: float = 2.0
    high: float = 98.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"riskft.PercentileIntensity has low {self.low} and high {self.high}, expected 0 <= low < high <= 100."
            )

    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises as the base class says; a channel whose percentiles are equal becomes 0."""
        # torch.quantile takes at most 2^24 values
        limits = [np.percentile(channel.numpy().ravel(order="K"), [self.low, self.high]) for channel in image]
        return torch.stack([_stretched(channel, *limit) for channel, limit in zip(image, limits, strict=True)])


@dataclass(frozen=True)
class MinMaxIntensity(Intensity):
    """The smallest value becomes 0 and the largest 1, per channel, over the whole volume."""

    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises as the base class says; a constant channel becomes 0."""
        return torch.stack([_stretched(channel, float(channel.min()), float(channel.max())) for channel in image])


@dataclass(frozen=True)
class ClipIntensity(Intensity):
    """Clips to fixed grey values, then subtracts and divides by fixed numbers, the same for all channels.

    For CT, whose Hounsfield units mean the same in every scan. Use ``PerChannelIntensity`` if channels differ.

    Args:
        low: Lower limit.
        high: Upper limit.
        mean: Subtracted after clipping.
        std: Divisor after subtraction.
    """

    low: float
    high: float
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high or not self.std > 0:
            raise InputError(
                f"riskft.ClipIntensity has low {self.low}, high {self.high} and std {self.std}, expected low < high "
                "and std > 0."
            )

    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises as the base class says."""
        return (image.clamp(self.low, self.high) - self.mean) / self.std


@dataclass(frozen=True)
class PerChannelIntensity(Intensity):
    """A separate normalisation for each channel.

    Args:
        channels: One for each of ``data.modalities``, in the same order.
    """

    channels: list[Intensity]

    def __call__(self, image: Tensor, inside: Tensor) -> Tensor:
        """Normalises as the base class says.

        Raises:
            InputError: If there are more or fewer channels than normalisations.
        """
        return self.in_order(image, inside, [False] * len(image))

    def in_order(self, image: Tensor, inside: Tensor, levels: Sequence[bool]) -> Tensor:
        """Normalises as the base class says.

        Raises:
            InputError: If there are more or fewer channels than normalisations.
        """
        if len(self.channels) != len(image):
            raise InputError(
                f"riskft.PerChannelIntensity has {len(self.channels)} entries, but the image has {len(image)} "
                "channels. Give one for each of data.modalities."
            )
        each = (slice(channel, channel + 1) for channel in range(len(image)))
        parts = (
            part.in_order(image[one], inside[one], levels[one]) for one, part in zip(each, self.channels, strict=True)
        )
        return torch.cat(list(parts))

    def describe(self) -> dict[str, object]:
        """Returns the class and each channel's description."""
        return {"class": type(self).__name__, "channels": [part.describe() for part in self.channels]}


def zscore(image: Tensor, inside: Tensor) -> Tensor:
    """Standardises each channel of (C, *spatial) over its voxels inside (C, *spatial) bool; the others become 0."""
    result = torch.empty_like(image)
    for channel, mask, out in zip(image, inside, result, strict=True):
        values = _within(channel, mask)
        if values.size > 1:
            _standardise(channel, *_moments(values), out=out)
            out.masked_fill_(~mask, 0)
        else:
            out.zero_()
    return result


def _within(channel: Tensor, mask: Tensor) -> npt.NDArray[np.float32]:
    """Returns the values of a channel in a mask, (N,), in any order."""
    # NumPy, because torch writes three 64-bit indices for each voxel; transposed, because x is fastest in files
    found: npt.NDArray[np.float32] = channel.numpy().T[mask.numpy().T]
    return found


def _standardise(channel: Tensor, mean: float, spread: float, out: Tensor) -> None:
    """Writes (channel - mean) / spread, computed in float64."""
    # slice by slice, because large temporary arrays cost more than the arithmetic
    with np.errstate(over="ignore"):  # of voxels outside a body of a single value
        for part, target in zip(channel.numpy().T, out.numpy().T, strict=True):
            target[...] = np.subtract(part, mean, dtype=np.float64) / spread


def _moments(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Returns the mean and a standard deviation above 0."""
    mean = float(values.mean(dtype=np.float64))
    parts = np.array_split(values, values.size // (1 << 16) + 1)  # as above
    squares = sum(float(np.square(np.subtract(part, mean, dtype=np.float64)).sum()) for part in parts)
    # relative to the mean: images in SI units, such as diffusion in m²/s, have deviations far below 1e-8
    least = max(1e-8 * abs(mean), np.finfo(np.float64).tiny)
    return mean, max(math.sqrt(squares / (values.size - 1)), least)


def _stretched(channel: Tensor, low: float, high: float) -> Tensor:
    """Maps low to 0 and high to 1, and clips; 0 everywhere if they are equal."""
    if not high > low:
        return torch.zeros_like(channel)
    return ((channel.double() - low) / (high - low)).clamp(0, 1).float()
