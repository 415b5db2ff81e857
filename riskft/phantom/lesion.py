"""The foci of a glioma: place, size, and how they displace the brain."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from riskft.phantom.grid import FloatArray, Grid


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
