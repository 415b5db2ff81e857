"""MR signals from proton density and relaxation times, and the images that a scanner makes of them.

Relaxation times are for 3 T, in ms; proton densities are relative to water.

* Grey and white matter: Stanisz et al. 2005, T1, T2 relaxation and magnetization transfer in tissue at 3T,
  Magn Reson Med 54:507 (doi:10.1002/mrm.20605). Other studies at 3 T give shorter T1, for example Wansapura et al.
  1999, J Magn Reson Imaging 9:531; see the review of Bojorquez et al. 2017, Magn Reson Imaging 35:69.
* CSF: rounded from the wide range in that review (T1 about 4 s, T2 well above 1 s).
* Proton densities of grey and white matter: rounded from the water contents of Whittall et al. 1997, Magn Reson Med
  37:34.
* Enhancing tumour: T1 rounded from MR fingerprinting of high-grade tumours at 3 T (1863 ms; de Blank et al. 2019,
  Pediatr Neurosurg 54:310), which gives a shorter T2 (90 ms) than spin echoes do.
* Oedema, necrosis and all proton densities of pathology are **approximations**: values vary by tens of per cent
  between and within patients (Bottomley et al. 1987, Med Phys 14:1). They were chosen between white matter and
  fluid so that all four contrasts are ordered as radiologists see them.
"""

from functools import partial

import numpy as np
import numpy.typing as npt

from riskft.phantom.grid import FloatArray, Grid, smooth_noise

Values = npt.NDArray[np.floating]

#: Order of the tissues along the first axis.
TISSUES = ("csf", "grey matter", "white matter", "oedema", "enhancing tumour", "necrotic core")

#: Proton density, T1 in ms and T2 in ms at 3 T: tissues x 3, sources in the module's docstring.
PD_T1_T2 = np.array(
    [
        [1.00, 4300.0, 2000.0],
        [0.82, 1820.0, 99.0],
        [0.70, 1084.0, 69.0],
        [0.86, 1700.0, 150.0],
        [0.85, 1850.0, 110.0],
        [0.94, 2900.0, 250.0],
    ]
)

#: r1 of Gd-DTPA in plasma at 3 T and 37 degrees, in 1/(mmol/L s): Rohrer et al. 2005, Invest Radiol 40:715.
RELAXIVITY = 3.7

#: Takes relative proton density, T1 and T2 in ms, and gives the signal's magnitude relative to fully relaxed water's.
PulseSequence = partial[Values]

_WHITE = TISSUES.index("white matter")
_ENHANCING = TISSUES.index("enhancing tumour")


def spin_echo(density: Values, t1: Values, t2: Values, tr: float, te: float) -> Values:
    """Returns S = PD (1 - exp(-TR / T1)) exp(-TE / T2); times in ms."""
    return np.asarray(density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2))


def spoiled_gradient_echo(density: Values, t1: Values, t2: Values, tr: float, te: float, flip: float) -> Values:
    """Returns S = PD sin(a) (1 - E) / (1 - E cos(a)) exp(-TE / T2) with E = exp(-TR / T1).

    After Ernst and Anderson 1966; times in ms, the flip angle a in degrees. T2 replaces T2*, which matters little at
    the short echo times of T1-weighted imaging.
    """
    angle = np.deg2rad(flip)
    recovery = np.exp(-tr / t1)
    steady = np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle))
    return np.asarray(density * steady * np.exp(-te / t2))


def inversion_recovery(density: Values, t1: Values, t2: Values, tr: float, te: float, ti: float) -> Values:
    """Returns S = PD abs(1 - 2 exp(-TI / T1) + exp(-TR / T1)) exp(-TE / T2), the magnitude image of a FLAIR.

    Times are in ms; CSF is nulled at TI = T1 ln(2 / (1 + exp(-TR / T1))).
    """
    recovery = np.abs(1 - 2 * np.exp(-ti / t1) + np.exp(-tr / t1))
    return np.asarray(density * recovery * np.exp(-te / t2))


T1W: PulseSequence = partial(spoiled_gradient_echo, tr=20.0, te=4.0, flip=28.0)
T2W: PulseSequence = partial(spin_echo, tr=6000.0, te=95.0)
FLAIR: PulseSequence = partial(inversion_recovery, tr=9000.0, te=110.0, ti=2480.0)


def jittered(sequence: PulseSequence, rng: np.random.Generator, relative: float = 0.02) -> PulseSequence:
    """Returns the sequence with each parameter multiplied by a log-normal factor, because sites differ."""
    factors = np.exp(rng.normal(0, relative, len(sequence.keywords)))
    changed = zip(sequence.keywords.items(), factors, strict=True)
    return partial(sequence.func, **{name: value * float(factor) for (name, value), factor in changed})


def enhanced_t1(t1: Values, concentration: Values) -> Values:
    """Returns T1 in ms shortened by C mmol/L of contrast agent: 1 / T1' = 1 / T1 + r1 C with r1 = ``RELAXIVITY``."""
    return np.asarray(1 / (1 / t1 + RELAXIVITY / 1000 * concentration))


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
