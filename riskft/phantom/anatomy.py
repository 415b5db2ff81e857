"""Brains: the ICBM152 tissue maps, deformed and varied per subject.

Template: Fonov et al. 2011, Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54:313
(doi:10.1016/j.neuroimage.2010.07.033), as shipped inside nilearn's wheel.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from riskft.errors import InputError
from riskft.phantom.grid import BOX, FloatArray, Grid, smooth_noise

#: Order of the healthy tissues along the first axis: cerebrospinal fluid, grey and white matter.
CSF, GM, WM = range(3)

SITE_DEPTH = 18.0  #: Smallest distance in mm of tumour centres from the brain's surface.

#: Exponent on the tissue probabilities: the template averages 152 brains and is blurrier than any single one.
SHARPNESS = 2.0


@dataclass(frozen=True)
class Template:
    """The average brain at 1 mm."""

    #: float32, 3 x X x Y x Z, probabilities of CSF, grey and white matter; they sum to the brain mask.
    tissues: FloatArray
    origin: npt.NDArray[np.float64]  #: World coordinates in mm (MNI, RAS) of voxel (0, 0, 0).
    sites: FloatArray  #: float32, sites x 3, world coordinates in mm of possible glioma centres.


def load_template(spacing: float) -> Template:
    """Loads the template, blurred to the voxel size in mm so that the maps do not alias; it needs nilearn, an extra."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise InputError(
            "The phantom cohort needs the brain templates of nilearn, which is not installed:",
            ["pip install 'riskft[phantom]'"],
        ) from error
    image = datasets.load_mni152_brain_mask(resolution=1)
    mask = np.asarray(image.dataobj) > 0
    box = tuple(slice(max(indices.min() - 4, 0), indices.max() + 5) for indices in np.nonzero(mask))
    origin = np.asarray(image.affine, dtype=np.float64)[:3, 3] + [part.start for part in box]
    mask = mask[box]
    grey, white = (
        np.clip(np.asarray(load(resolution=1).dataobj, dtype=np.float32)[box], 0, 1) * mask
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    sites = _sites(mask, white, origin)
    tissues = np.stack([np.clip(mask - grey - white, 0, 1), grey, white])
    if spacing > 1:
        width = np.sqrt(spacing**2 - 1) / 2.355  # brings a resolution (FWHM) of 1 mm to that of the grid
        tissues = ndimage.gaussian_filter(tissues, (0, width, width, width), mode="constant", truncate=3)
    return Template(tissues.astype(np.float32), origin, sites)


def _sites(mask: npt.NDArray[np.bool_], white: FloatArray, origin: npt.NDArray[np.float64]) -> FloatArray:
    """Returns the sites in deep white matter of the cerebrum, away from the midline, on every second voxel."""
    step = (slice(None, None, 2),) * 3
    deep = ndimage.distance_transform_edt(np.pad(mask[step], 1), sampling=2)[1:-1, 1:-1, 1:-1] > SITE_DEPTH
    sites = np.argwhere(deep & (white[step] > 0.6)) * 2 + origin
    cerebrum = (np.abs(sites[:, 0]) > 14) & (sites[:, 2] > -4)
    return np.asarray(sites[cerebrum], dtype=np.float32)


def draw_warp(rng: np.random.Generator, grid: Grid) -> FloatArray:
    """Draws each voxel's template position in mm, float32, 3 x X x Y x Z: affine, then elastic on two scales."""
    points = grid.points()
    centre = np.array([(low + high) / 2 for low, high in BOX])
    matrix = np.diag(np.exp(rng.normal(0, 0.035, 3))) + rng.normal(0, 0.018, (3, 3)) * (1 - np.eye(3))
    shift = centre - matrix @ centre + rng.normal(0, 1.0, 3)
    warp = np.einsum("ij,jxyz->ixyz", matrix.astype(np.float32), points)
    for axis in range(3):
        warp[axis] += np.float32(shift[axis])
        warp[axis] += 2.5 * smooth_noise(rng, grid, 36) + 0.9 * smooth_noise(rng, grid, 14)
    return np.asarray(warp, dtype=np.float32)


def draw_tissues(rng: np.random.Generator, grid: Grid, template: Template, warp: FloatArray) -> FloatArray:
    """Draws a subject's tissue fractions, float32, 3 x X x Y x Z: their sum is 1 in the brain, 0 outside.

    With smooth noise n_t and the subject's amount a_t of each tissue, the fractions of the warped probabilities p_t,
    f_t = (p_t exp(a_t + n_t))^k / sum_u (p_u exp(a_u + n_u))^k with k = ``SHARPNESS``,
    give each subject its own cortical ribbon, ventricles and sulci.
    """
    where = warp - template.origin.astype(np.float32)[:, None, None, None]  # voxel indices, because voxels are 1 mm
    fractions = np.stack([ndimage.map_coordinates(p, where, order=1, prefilter=False) for p in template.tissues])
    brain = fractions.sum(axis=0) > 0.5
    for tissue, amount in zip((CSF, GM, WM), rng.normal((0.35, 0, 0), 0.15), strict=True):
        noise = 0.3 * smooth_noise(rng, grid, 7) + np.float32(amount)
        fractions[tissue] = (np.clip(fractions[tissue], 0, 1) * np.exp(noise)) ** SHARPNESS
    total = fractions.sum(axis=0)
    return np.asarray(np.where(brain, fractions / np.where(brain, total, 1), 0), dtype=np.float32)


def inside_brain(tissues: FloatArray) -> npt.NDArray[np.bool_]:
    """Returns the brain mask, X x Y x Z, of tissue fractions, tissues x X x Y x Z."""
    return np.asarray(tissues.any(axis=0))
