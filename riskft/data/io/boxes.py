"""Reads boxes from volumes that riskft wrote itself: uncompressed NIfTI, and the ``.npz`` of ``write_channels``."""

import math
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from riskft.data.io.volumes import Affine, read_channels


class Boxes:
    """Reads boxes from a ``.nii`` file without scale factors, and its header once."""

    def __init__(self, path: Path) -> None:
        image = nib.load(path)
        self.path = path
        self.shape: tuple[int, ...] = image.shape[:3]
        self.affine: Affine = np.asarray(image.affine, dtype=np.float64)
        self.channels = math.prod(image.shape[3:])
        self._dtype, self._offset = image.dataobj.dtype, int(image.dataobj.offset)
        self._minima: list[float] | None = None

    def read(self, start: Sequence[int], stop: Sequence[int]) -> Tensor:
        """Returns a box in the volume, (C, *(stop - start)), float32 or uint8; raises OSError if the file is short."""
        (x, y, z), (to_x, to_y, to_z) = start, stop
        kind = torch.uint8 if self._dtype == np.uint8 else torch.float32
        box = torch.empty(self.channels, to_x - x, to_y - y, to_z - z, dtype=kind)
        for channel in range(self.channels):
            planes = self._planes(channel, z, to_z)
            box[channel] = torch.from_numpy(planes[:, y:to_y, x:to_x]).permute(2, 1, 0)
        return box

    def minima(self) -> list[float]:
        """Returns the smallest value of each channel; only the first call reads the file."""
        if self._minima is None:
            self._minima = [float(self._planes(channel, 0, self.shape[2]).min()) for channel in range(self.channels)]
        return self._minima

    def _planes(self, channel: int, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Reads planes of a channel, (Z, Y, X): NIfTI stores them one after the other, x fastest."""
        width, height, depth = self.shape
        first, count = (channel * depth + start) * height * width, (stop - start) * height * width
        offset = self._offset + first * self._dtype.itemsize
        values = np.fromfile(self.path, self._dtype, count, offset=offset)
        if len(values) < count:
            raise OSError(f"{self.path} is too short")
        return values.reshape(stop - start, height, width)


class ChannelBoxes:
    """Reads boxes from a file that ``write_channels`` wrote, which it holds in memory."""

    def __init__(self, path: Path) -> None:
        self._values, self.affine = read_channels(path)
        self.channels, *shape = self._values.shape
        self.shape = tuple(shape)

    def read(self, start: Sequence[int], stop: Sequence[int]) -> Tensor:
        """Returns a box inside the volume, (C, *(stop - start)) float32."""
        (x, y, z), (to_x, to_y, to_z) = start, stop
        return self._values[:, x:to_x, y:to_y, z:to_z]

    def minima(self) -> list[float]:
        """Returns the smallest value of each channel."""
        return [float(value) for value in self._values.flatten(1).min(1).values]
