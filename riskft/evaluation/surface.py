"""The 95th percentile of the distances between two surfaces, the larger of both directions (HD95).

Equal to MONAI's ``compute_hausdorff_distance``, but faster: most distances are a few voxels. These are looked up around
the surface's voxels, nearest first, until enough are known for the percentile. Only voxels farther away need a search.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

Mask = npt.NDArray[np.bool_]

_REACH = 3
"""Distances up to this many of the smallest voxel edges are looked up."""

_MANY = 0.05
"""Fraction of the box's voxels to search from, above which a distance transform of the box is faster."""


def hd95(predicted: Mask, true: Mask, spacing: Sequence[float]) -> float:
    """Returns the HD95 in mm of two masks of one shape, (X, Y, Z), neither of which is empty.

    A mask's surface is its voxels with at least one of their six neighbours outside the mask or the volume.

    Args:
        predicted: One mask, in any box that holds both masks whole.
        true: The other mask, in the same box.
        spacing: Voxel size in mm.
    """
    limit = _REACH * min(spacing)
    reach = [int(limit / edge) for edge in spacing]
    around = [range(-many, many + 1) for many in reach]
    steps = np.stack(np.meshgrid(*around, indexing="ij"), axis=-1).reshape(-1, len(reach))
    lengths = np.linalg.norm(steps * np.asarray(spacing), axis=1)
    order = np.argsort(lengths)[: np.count_nonzero(lengths <= limit)]
    margin = [(max(1, many),) * 2 for many in reach]
    first, second = (_surface(np.ascontiguousarray(np.pad(mask, margin))) for mask in (predicted, true))
    # steps in the flattened volume, inside which the margin keeps them
    ways = steps @ np.array(first.strides)
    table = list(zip(ways[order].tolist(), lengths[order].tolist(), strict=True))
    return max(_percentile(first, second, spacing, table), _percentile(second, first, spacing, table))


def _surface(mask: Mask) -> Mask:
    """Returns the voxels of a mask with an empty margin that have a neighbour outside it."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
    border: Mask = mask & ~inner
    return border


def _percentile(surface: Mask, other: Mask, spacing: Sequence[float], table: Sequence[tuple[int, float]]) -> float:
    """Returns the 95th percentile of the distances from one surface's voxels to the other surface."""
    places, flat = np.flatnonzero(surface), other.ravel()
    distances = np.full(len(places), table[-1][1])  # those above the percentile need not be exact
    enough, known = min(len(places), math.floor(0.95 * (len(places) - 1)) + 2), 0
    for step, length in table:
        places = places[~flat[places + step]]
        distances[known : len(distances) - len(places)] = length
        known = len(distances) - len(places)
        if known >= enough:
            break
    else:
        distances[known:] = _far(places, other, spacing)
    return float(np.percentile(distances, 95))


def _far(places: npt.NDArray[np.intp], other: Mask, spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns the distances from places in the flattened volume to a surface."""
    scale = np.asarray(spacing)
    here = np.stack(np.unravel_index(places, other.shape), axis=-1)
    if len(places) > _MANY * other.size:
        nearest = distance_transform_edt(~other, tuple(spacing), return_distances=False, return_indices=True)
        return np.asarray(np.linalg.norm((nearest.reshape(len(scale), -1)[:, places].T - here) * scale, axis=1))
    # not balanced, because building a balanced tree takes longer than a single query gains
    tree = cKDTree(np.argwhere(other) * scale, leafsize=32, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(here * scale)[0])
