"""MR signals from proton density and relaxation times.

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

from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]

TISSUES = ("csf", "grey matter", "white matter", "oedema", "enhancing tumour", "necrotic core")
"""Order of the tissues along the first axis."""

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
"""Proton density, T1 in ms and T2 in ms at 3 T: tissues x 3, sources in the module's docstring."""

RELAXIVITY = 3.7
"""r1 of Gd-DTPA in plasma at 3 T and 37 degrees, in 1/(mmol/L s): Rohrer et al. 2005, Invest Radiol 40:715."""


class PulseSequence(Protocol):
    """Turns tissue properties into a signal."""

    def __call__(self, density: Values, t1: Values, t2: Values) -> Values:
        """Returns the signal's magnitude, relative to that of fully relaxed water.

        Args:
            density: Relative proton density, any shape.
            t1: T1 in ms, same shape.
            t2: T2 in ms, same shape.
        """
        ...


@dataclass(frozen=True)
class SpinEcho:
    """S = PD (1 - exp(-TR / T1)) exp(-TE / T2)."""

    tr: float  #: Repetition time in ms.
    te: float  #: Echo time in ms.

    def __call__(self, density: Values, t1: Values, t2: Values) -> Values:
        """Returns the signal; see ``PulseSequence``."""
        return np.asarray(density * (1 - np.exp(-self.tr / t1)) * np.exp(-self.te / t2))


@dataclass(frozen=True)
class SpoiledGradientEcho:
    """S = PD sin(a) (1 - E) / (1 - E cos(a)) exp(-TE / T2) with E = exp(-TR / T1), after Ernst and Anderson 1966.

    T2 replaces T2*, which matters little at the short echo times of T1-weighted imaging.
    """

    tr: float  #: Repetition time in ms.
    te: float  #: Echo time in ms.
    flip: float  #: Flip angle a in degrees.

    def __call__(self, density: Values, t1: Values, t2: Values) -> Values:
        """Returns the signal; see ``PulseSequence``."""
        angle = np.deg2rad(self.flip)
        recovery = np.exp(-self.tr / t1)
        steady = np.sin(angle) * (1 - recovery) / (1 - recovery * np.cos(angle))
        return np.asarray(density * steady * np.exp(-self.te / t2))


@dataclass(frozen=True)
class InversionRecovery:
    """S = PD abs(1 - 2 exp(-TI / T1) + exp(-TR / T1)) exp(-TE / T2), the magnitude image of a FLAIR."""

    tr: float  #: Repetition time in ms.
    te: float  #: Echo time in ms.
    ti: float  #: Inversion time in ms; CSF is nulled at T1 ln(2 / (1 + exp(-TR / T1))).

    def __call__(self, density: Values, t1: Values, t2: Values) -> Values:
        """Returns the signal; see ``PulseSequence``."""
        recovery = np.abs(1 - 2 * np.exp(-self.ti / t1) + np.exp(-self.tr / t1))
        return np.asarray(density * recovery * np.exp(-self.te / t2))


T1W = SpoiledGradientEcho(tr=20.0, te=4.0, flip=28.0)
T2W = SpinEcho(tr=6000.0, te=95.0)
FLAIR = InversionRecovery(tr=9000.0, te=110.0, ti=2480.0)

AnySequence = TypeVar("AnySequence", SpoiledGradientEcho, SpinEcho, InversionRecovery)


def jittered(sequence: AnySequence, rng: np.random.Generator, relative: float = 0.02) -> AnySequence:
    """Returns the sequence with each parameter multiplied by a log-normal factor, because sites differ."""
    factors = np.exp(rng.normal(0, relative, len(fields(sequence))))
    changes = {
        field.name: getattr(sequence, field.name) * float(factor)
        for field, factor in zip(fields(sequence), factors, strict=True)
    }
    return replace(sequence, **changes)


def enhanced_t1(t1: Values, concentration: Values) -> Values:
    """Returns T1 in ms shortened by C mmol/L of contrast agent: 1 / T1' = 1 / T1 + r1 C with r1 = ``RELAXIVITY``."""
    return np.asarray(1 / (1 / t1 + RELAXIVITY / 1000 * concentration))
