"""Turns tissue fractions into the integers of an image file: mixing, bias field, noise and scale."""

import numpy as np
import numpy.typing as npt

from riskft.phantom.grid import FloatArray, Grid, smooth_noise
from riskft.phantom.signal import PD_T1_T2, TISSUES, PulseSequence, Values, enhanced_t1

_WHITE = TISSUES.index("white matter")
_ENHANCING = TISSUES.index("enhancing tumour")


def draw_properties(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draws proton density, T1 and T2 in ms, float64, tissues x 3, log-normal around the literature's values."""
    return np.asarray(PD_T1_T2 * np.exp(rng.normal(0, 0.025, PD_T1_T2.shape)))


def mix(
    fractions: FloatArray, properties: Values, sequence: PulseSequence, concentration: FloatArray | None = None
) -> FloatArray:
    """Computes the noiseless signal, float32, voxels, in which the tissues of a voxel add up by volume.

    ``fractions`` are float32, tissues x voxels, in the order of ``TISSUES`` (later ones may be missing), ``properties``
    tissues x 3: proton density, T1 and T2 in ms. ``concentration``, voxels, is mmol/L of contrast agent in the
    enhancing tumour; None before the injection.
    """
    density, t1, t2 = properties[: len(fractions)].T
    signals = sequence(density, t1, t2)
    mixed = np.zeros(fractions.shape[1:], dtype=np.float32)
    for part, tissue in zip(fractions, signals, strict=True):
        mixed += part * np.float32(tissue)
    if concentration is not None:
        leaky = np.flatnonzero(fractions[_ENHANCING])
        short = enhanced_t1(t1[_ENHANCING], concentration[leaky])
        gain = sequence(density[_ENHANCING], short, t2[_ENHANCING]) - signals[_ENHANCING]
        mixed[leaky] += fractions[_ENHANCING, leaky] * gain
    return np.asarray(mixed, dtype=np.float32)


def scan(
    rng: np.random.Generator, grid: Grid, brain: npt.NDArray[np.bool_], signal: FloatArray, white: float
) -> npt.NDArray[np.int16]:
    """Turns a signal into an image, int16, X x Y x Z, 0 outside the brain, like a scanner followed by skull stripping.

    A multiplicative bias field exp(b), b smooth over 70 mm with a standard deviation of 6 %; Rician noise
    |s + n1 + i n2| with a standard deviation of 2 to 4 % of the white matter's signal ``white``; an arbitrary scale.
    The signal has one value per voxel of ``brain``, X x Y x Z, in the order of boolean indexing; the image at least 1.
    """
    scale = float(np.exp(rng.uniform(np.log(200), np.log(1200)))) / white
    noise = np.float32(rng.uniform(0.02, 0.04) * white)
    bias = np.exp(0.06 * smooth_noise(rng, grid, 70)[brain])
    real = signal * bias + noise * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(signal.shape, dtype=np.float32)
    image = np.zeros(grid.shape, dtype=np.int16)
    image[brain] = np.clip(np.rint(np.hypot(real, imaginary) * np.float32(scale)), 1, np.iinfo(np.int16).max)
    return image


def white_signal(properties: Values, sequence: PulseSequence) -> float:
    """Returns the signal of pure white matter, which sets noise and scale."""
    return float(sequence(*properties[_WHITE]))
