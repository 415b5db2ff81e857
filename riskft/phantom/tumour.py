"""Gliomas: foci that displace the brain, a necrotic core in an enhancing rim, an oedema along the white matter."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from riskft.phantom.anatomy import CSF, WM, inside_brain
from riskft.phantom.grid import FloatArray, Grid, smooth_noise

NECROTIC, OEDEMA, ENHANCING = 1, 2, 4  #: Label values of BraTS and FeTS.
MIN_VOXELS = 50  #: Smallest number of voxels of a subject's oedema, and of its enhancing tumour.
GREY_DELAY = 12.0  #: Oedema spreads as if grey matter and CSF were this many mm farther away than white matter.
MIDLINE_DELAY = 15.0  #: The same for a hemisphere without a focus: only large oedemas cross the midline.
OEDEMA_BLUR = 1.8  #: Standard deviation in mm of the oedema's smooth border, which its label does not have.


@dataclass(frozen=True)
class Lesion:
    """One focus, before noise makes it irregular."""

    centre: npt.NDArray[np.float64]  #: World coordinates in mm.
    radius: float  #: Mean radius in mm of the necrotic core.
    rim: float  #: Thickness in mm of the enhancing rim.
    shape: npt.NDArray[np.float64]  #: 3 x 3, rotates and stretches the sphere to an ellipsoid of the same volume.
    necrotic: bool  #: Whether the inside is necrotic; otherwise the whole focus enhances.
    side: int  #: 1 in the right hemisphere, -1 in the left one.

    def grown(self, factor: float) -> "Lesion":
        """Returns the lesion with all lengths multiplied by a factor."""
        return replace(self, radius=self.radius * factor, rim=self.rim * factor)


def draw_lesions(rng: np.random.Generator, sites: FloatArray, foci: int, necrotic: bool) -> list[Lesion]:
    """Draws the foci, centred at ``sites`` (sites x 3, mm); a second one is smaller and at least 35 mm away."""
    lesions: list[Lesion] = []
    for focus in range(foci):
        for lesion in lesions:
            sites = sites[np.linalg.norm(sites - lesion.centre, axis=1) > 35]
        stretch = np.exp(rng.normal(0, 0.15, 3))
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        centre = sites[rng.integers(len(sites))].astype(np.float64)
        lesions.append(
            Lesion(
                centre=centre,
                radius=float(rng.uniform(6, 14)) * (0.7 if focus else 1.0),
                rim=float(rng.uniform(3.0, 5.5)),
                shape=np.diag(stretch / np.prod(stretch) ** (1 / 3)) @ rotation,
                necrotic=necrotic,
                side=1 if centre[0] > 0 else -1,
            )
        )
    return lesions


def place(lesion: Lesion, warp: FloatArray, grid: Grid) -> Lesion:
    """Moves a lesion from template to subject coordinates, given the template coordinates of each voxel (``warp``)."""
    centre = lesion.centre.astype(np.float32)[:, None, None, None]
    nearest = np.unravel_index(int(np.square(warp - centre).sum(axis=0).argmin()), grid.shape)
    return replace(lesion, centre=np.array([axis[i] for axis, i in zip(grid.axes, nearest, strict=True)]))


def push_aside(warp: FloatArray, lesion: Lesion, grid: Grid) -> FloatArray:
    """Adds the mass effect to the warp (float32, 3 x X x Y x Z, mm): the focus displaces tissue without compressing it.

    A sphere of radius a that appears in an incompressible medium moves tissue from distance s of its centre to
    r = (s^3 + a^3)^(1/3). The warp needs the inverse, s = (r^3 - a^3)^(1/3). Here a is 0.8 of the focus's radius.
    """
    offset = grid.points() - lesion.centre.astype(np.float32)[:, None, None, None]
    distance = np.sqrt(np.square(offset).sum(axis=0)) + np.float32(1e-3)
    source = np.cbrt(np.clip(distance**3 - np.float32(0.8 * (lesion.radius + lesion.rim)) ** 3, 0, None))
    return np.asarray(warp + offset * (source / distance - 1), dtype=np.float32)


@dataclass(frozen=True)
class Tumour:
    """A subject's tumour on the grid; all arrays are X x Y x Z."""

    labels: npt.NDArray[np.uint8]  #: uint8: 0, 1 necrotic core, 2 oedema, 4 enhancing tumour.
    core: FloatArray  #: float32 fraction of the voxel that is necrotic.
    rim: FloatArray  #: float32 fraction of the voxel that enhances.
    #: float32 fraction of the voxel that is oedematous; less than 1 even inside, where tissue remains.
    oedema: FloatArray


@dataclass(frozen=True)
class _Surfaces:
    """Signed distances in mm, negative inside, float32, X x Y x Z."""

    core: FloatArray  #: From the core's surface; infinite if there is no core.
    solid: FloatArray  #: From the outer surface of the rim.


def grow(
    rng: np.random.Generator, grid: Grid, lesions: Sequence[Lesion], tissues: FloatArray, lateral: FloatArray
) -> Tumour:
    """Grows the foci, given in subject coordinates, in a subject's brain.

    Core and rim are sublevel sets of the distance from an ellipsoid plus smooth noise (in mm). The oedema consists of
    the voxels with the smallest ``distance from the rim + GREY_DELAY (1 - white matter) + noise`` (plus
    ``MIDLINE_DELAY`` in the other hemisphere), so that the whole tumour makes up 1.5 to 7 % of the brain, or 2.5 times
    the solid part if that is more. If a coarse grid leaves fewer than ``MIN_VOXELS`` of oedema or enhancing tumour, the
    foci are enlarged. ``tissues`` are fractions of CSF, grey and white matter, 3 x X x Y x Z, all 0 outside the brain;
    ``lateral`` is the template coordinate in mm to the right of the midline, X x Y x Z.
    """
    bumps = [(smooth_noise(rng, grid, 12), smooth_noise(rng, grid, 5)) for _ in lesions]
    thickness, front, texture = smooth_noise(rng, grid, 9), smooth_noise(rng, grid, 8), smooth_noise(rng, grid, 6)
    share = float(np.exp(rng.uniform(np.log(0.015), np.log(0.07))))
    away = np.min([np.clip(-lateral * lesion.side / 5, 0, 1) for lesion in lesions], axis=0)
    arrival = GREY_DELAY * (1 - tissues[WM]) + MIDLINE_DELAY * away + 2 * front
    for attempt in range(12):
        sized = [lesion.grown(1.1**attempt) for lesion in lesions]
        surfaces = _surfaces(grid, sized, bumps, thickness)
        arrived = arrival + np.clip(surfaces.solid, 0, None)
        labels = _labels(surfaces, arrived, tissues, share)
        if min(np.count_nonzero(labels == label) for label in (OEDEMA, ENHANCING)) >= MIN_VOXELS:
            break
    return _with_fractions(grid, labels, surfaces, tissues, texture)


def _surfaces(
    grid: Grid, lesions: Sequence[Lesion], bumps: Sequence[tuple[FloatArray, FloatArray]], thickness: FloatArray
) -> _Surfaces:
    core = np.full(grid.shape, np.inf, dtype=np.float32)
    solid = core.copy()
    for lesion, (coarse, fine) in zip(lesions, bumps, strict=True):
        offset = grid.points() - lesion.centre.astype(np.float32)[:, None, None, None]
        turned = np.einsum("ij,jxyz->ixyz", lesion.shape.astype(np.float32), offset)
        distance = np.sqrt(np.square(turned).sum(axis=0)) - np.float32(lesion.radius)
        distance += np.float32(lesion.radius) * (0.26 * coarse + 0.07 * fine)
        solid = np.minimum(solid, distance - np.float32(lesion.rim) * np.exp(0.45 * thickness))
        if lesion.necrotic:
            core = np.minimum(core, distance)
    return _Surfaces(core, solid)


def _labels(surfaces: _Surfaces, arrived: FloatArray, tissues: FloatArray, share: float) -> npt.NDArray[np.uint8]:
    """Returns the labels of core, rim and oedema; oedema is where ``arrived`` is smallest."""
    brain = inside_brain(tissues)
    inside = brain & (surfaces.solid < 0)
    candidates = brain & ~inside & (tissues[CSF] < 0.5)
    scores = arrived[candidates]
    size = int(max(share * np.count_nonzero(brain), 2.5 * np.count_nonzero(inside))) - np.count_nonzero(inside)
    limit = np.partition(scores, size)[size] if size < scores.size else scores.max()
    whole = inside | (candidates & (arrived < limit)) | (ndimage.binary_dilation(inside) & brain)
    pieces, _ = ndimage.label(whole)
    labels = np.zeros(brain.shape, dtype=np.uint8)
    labels[whole & np.isin(pieces, np.unique(pieces[inside]))] = OEDEMA
    labels[inside] = ENHANCING
    labels[inside & (surfaces.core < 0)] = NECROTIC
    return labels


def _with_fractions(
    grid: Grid, labels: npt.NDArray[np.uint8], surfaces: _Surfaces, tissues: FloatArray, texture: FloatArray
) -> Tumour:
    """Adds the tumour fractions: partial volumes at the surfaces, and an oedema that fades outwards."""
    brain = inside_brain(tissues)
    core = np.clip(0.5 - surfaces.core / grid.spacing, 0, 1) * brain
    solid = np.clip(0.5 - surfaces.solid / grid.spacing, 0, 1) * brain
    living = core * np.clip(0.15 + 0.15 * texture, 0, 0.5)  # necrosis is not uniform: islands of living tumour
    water = (1 - 0.02 * np.clip(surfaces.solid, 0, 15) + 0.12 * texture) * (0.4 + 0.6 * tissues[WM])
    spread = ndimage.gaussian_filter((labels > 0).astype(np.float32), OEDEMA_BLUR / grid.spacing)
    return Tumour(
        labels,
        core=core - living,
        rim=solid - core + living,
        oedema=np.clip(water, 0, 1) * (1 - tissues[CSF]) * brain * np.clip(spread - solid, 0, 1),
    )
