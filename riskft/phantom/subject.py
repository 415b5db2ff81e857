"""Simulates one subject from its number: a patient with a glioma, or a healthy brain."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riskft.phantom.anatomy import Template, draw_tissues, draw_warp, inside_brain
from riskft.phantom.grid import FloatArray, Grid, smooth_noise
from riskft.phantom.scanner import FLAIR, T1W, T2W, draw_properties, jittered, mix, scan, white_signal
from riskft.phantom.tumour import Tumour, draw_lesions, grow, place, push_aside

_PATIENT, _HEALTHY = 0, 1


@dataclass(frozen=True)
class PhantomSubject:
    """A simulated subject, X x Y x Z each, axes towards right, front and top."""

    images: dict[str, npt.NDArray[np.int16]]  #: int16 images by modality, 0 outside the brain.
    #: uint8: 0, 1, 2, 4 for patients; 0 and 1 to 3 (CSF, grey, white matter) for healthy brains.
    labels: npt.NDArray[np.uint8]
    #: float32, tissues x X x Y x Z: each voxel's composition, in the order of ``signal.TISSUES``.
    fractions: FloatArray


def patient(template: Template, grid: Grid, seed: int, number: int) -> PhantomSubject:
    """Simulates a patient with a glioma: t1, t1ce, t2, flair and the tumour's labels.

    Every fifth patient has two foci, every seventh (from the fourth on) no necrotic core. The cohort's seed and the
    patient's number, from 1, determine everything.
    """
    rng = np.random.default_rng([seed, _PATIENT, number])
    warp = draw_warp(rng, grid)
    foci, necrotic = 2 if number % 5 == 0 else 1, number % 7 != 4
    lesions = [place(lesion, warp, grid) for lesion in draw_lesions(rng, template.sites, foci, necrotic)]
    for lesion in lesions:
        warp = push_aside(warp, lesion, grid)
    tissues = draw_tissues(rng, grid, template, warp)
    tumour = grow(rng, grid, lesions, tissues, lateral=warp[0])
    fractions = _with_tumour(tissues, tumour)
    agent = np.float32(rng.uniform(0.12, 0.24)) * np.exp(0.4 * smooth_noise(rng, grid, 6))  # mmol/L

    brain = inside_brain(tissues)
    inside, properties = fractions[:, brain], draw_properties(rng)
    sequences = {
        "t1": jittered(T1W, rng),
        "t1ce": jittered(T1W, rng),
        "t2": jittered(T2W, rng),
        "flair": jittered(FLAIR, rng, 0.01),
    }
    images = {}
    for name, sequence in sequences.items():
        signal = mix(inside, properties, sequence, agent[brain] if name == "t1ce" else None)
        images[name] = scan(rng, grid, brain, signal, white_signal(properties, sequence))
    return PhantomSubject(images, tumour.labels, fractions)


def healthy(template: Template, grid: Grid, seed: int, number: int) -> PhantomSubject:
    """Simulates a healthy brain: T1, T2 and the tissue that fills most of each voxel; see ``patient``."""
    rng = np.random.default_rng([seed, _HEALTHY, number])
    tissues = draw_tissues(rng, grid, template, draw_warp(rng, grid))
    brain, properties = inside_brain(tissues), draw_properties(rng)
    sequences = {"T1": jittered(T1W, rng), "T2": jittered(T2W, rng)}
    images = {
        name: scan(rng, grid, brain, mix(tissues[:, brain], properties, sequence), white_signal(properties, sequence))
        for name, sequence in sequences.items()
    }
    labels = np.where(brain, tissues.argmax(axis=0) + 1, 0).astype(np.uint8)
    return PhantomSubject(images, labels, tissues)


def _with_tumour(tissues: FloatArray, tumour: Tumour) -> FloatArray:
    """Returns the fractions with the tumour's part of each voxel: 6 x X x Y x Z, sums to 1 inside the brain."""
    left = 1 - tumour.core - tumour.rim - tumour.oedema
    return np.stack([*(tissues * left), tumour.oedema, tumour.rim, tumour.core]).astype(np.float32)
