"""Scores of how well features tell the classes apart: H-score, LogME and GBC. Higher is better.

All three count each voxel of the class-balanced samples once, as Agostinelli et al. do for segmentation (ECCV 2022,
arXiv 2204.01403): with the voxels' weights they would describe the background.
"""

import math

import torch
from torch import Tensor

from riskft.transferability.moments import Moments

_LEAST_SHRINKAGE = 1e-9  # makes the covariance of features that span fewer dimensions invertible
_LEAST_VARIANCE = 1e-4  # of a class, relative to the variance of all voxels
_NO_RANK = 1e-12  # squared singular values, relative to the largest, that count as 0
_MOST_PRECISION = 1e6  # of the labels' noise in LogME, so that a perfect fit has a finite evidence


def h_score(moments: Moments) -> float:
    """Returns the H-score with shrinkage, in [0, Y - 1].

    The H-score (Bao et al., ICIP 2019) is tr(cov(f)^-1 cov(E[f|y])). Ibrahim, Ponomareva and Mazumder (ECML PKDD 2022,
    arXiv 2110.06893) shrink cov(f) to ``(1 - a) cov(f) + a tr(cov(f))/F I``, with a by Ledoit and Wolf, and scale
    cov(E[f|y]) by ``1 - a`` too. Raises CannotScoreError if the features do not vary, or if there is one class.
    """
    classes = moments.present()
    covariance, count = moments.covariance(), moments.counts.sum()
    shrinkage, variance = ledoit_wolf(moments)
    shrunk = (1 - shrinkage) * covariance
    shrunk.diagonal().add_(max(shrinkage, _LEAST_SHRINKAGE) * variance)
    offsets = moments.sums[classes] / moments.counts[classes, None] - moments.mean
    solved = torch.cholesky_solve(offsets.T, torch.linalg.cholesky(shrunk))
    ratios = (offsets.T * solved).sum(0)
    return float((1 - shrinkage) * (moments.counts[classes] / count * ratios).sum())


def ledoit_wolf(moments: Moments) -> tuple[float, float]:
    """Returns Ledoit and Wolf's shrinkage, in [0, 1], and the mean variance (J. Multivariate Analysis 88, 2004)."""
    covariance, count, mean = moments.covariance(), moments.counts.sum(), moments.mean
    size, norm = len(mean), mean.square().sum()
    # sum |x - mean|^4, from the sums relative to the centre
    fourths = moments.fourths - 4 * mean @ moments.cubes + 4 * mean @ moments.products @ mean
    fourths = fourths + 2 * norm * moments.squares.sum() - 3 * count * norm**2
    variance = covariance.trace() / size
    distance = covariance.square().sum() - size * variance**2
    error = (fourths / count - covariance.square().sum()) / count
    shrinkage = (error / distance).clamp(0, 1) if distance > 1e-15 * size * variance**2 else error * 0
    return float(shrinkage), float(variance)


def logme(moments: Moments) -> float:
    """Returns LogME, the mean over classes of the log evidence per voxel (You et al., ICML 2021, arXiv 2102.11005).

    The evidence of ``y ~ N(f w, 1/b)``, ``w ~ N(0, 1/a)``, with y 1 in the class and 0 elsewhere and no intercept, is
    maximal over a and b. Given ``t = a/b``, the best b is known, so that t alone is searched, on grids, where the
    published fixed point may stop at a local maximum. b is at most 10^6: labels that the features determine have an
    infinite evidence otherwise. Raises CannotScoreError if the features do not vary, or if there is one class.
    """
    classes = moments.present()
    moments.covariance()
    sums, counts, count = moments.sums.sum(0), moments.counts, moments.counts.sum()
    shift = moments.centre.outer(sums)
    gram = moments.products + shift + shift.T + count * moments.centre.outer(moments.centre)
    squared, axes = torch.linalg.eigh(gram)
    kept = squared > _NO_RANK * squared[-1]
    squared, axes = squared[kept], axes[:, kept]
    raw = (moments.sums + counts[:, None] * moments.centre)[classes]
    explained = (raw @ axes).square() / squared  # (Y, rank): of |y|^2, by each axis
    rest = (counts[classes] - explained.sum(1)).clamp_min(0)

    def evidence_of(ratio: Tensor) -> Tensor:
        """Returns the log evidence per voxel, (Y, T), for each ``a/b``, (Y, T)."""
        share = ratio[..., None] / (ratio[..., None] + squared)
        error = (rest[:, None] + (explained[:, None] * share).sum(-1)) / count
        precision = error.clamp_min(1 / _MOST_PRECISION).reciprocal()
        fit = precision.log() - precision * error - math.log(2 * math.pi)
        evidence: Tensor = (fit + share.log().sum(-1) / count) / 2
        return evidence

    best = torch.full((len(classes), 1), float(squared[-1].log()), dtype=torch.float64)
    for reach in (32.0, 0.5, 0.008):  # natural logarithms on either side
        ratios = best + torch.linspace(-reach, reach, 129, dtype=torch.float64)
        values = evidence_of(ratios.exp())
        best = ratios.gather(1, values.argmax(1, keepdim=True))
    return float(values.max(1).values.mean())


def gbc(moments: Moments) -> float:
    """Returns GBC, minus the sum over ordered pairs of classes of exp(-Bhattacharyya distance), at most 0.

    Pandy et al. (CVPR 2022, arXiv 2111.12780), with the spherical Gaussians that they and Agostinelli et al. prefer. A
    class's variance is at least 10^-4 of the variance of all voxels, and classes with one voxel do not count. Raises
    CannotScoreError if fewer than two classes count, or if the features do not vary.
    """
    classes = moments.present(least=2)
    size = moments.sums.shape[1]
    overall = moments.covariance().trace() / size
    counts = moments.counts[classes]
    means = moments.sums[classes] / counts[:, None]
    variances = (moments.squares[classes] / counts - means.square().sum(1)) / size
    variances = torch.maximum(variances, _LEAST_VARIANCE * overall)
    middle = (variances[:, None] + variances) / 2
    gaps = (means[:, None] - means).square().sum(-1)
    logs = middle.log() - (variances.log()[:, None] + variances.log()) / 2
    coefficients = torch.exp(-(gaps / middle / 8 + size * logs / 2))
    return float(coefficients.diagonal().sum() - coefficients.sum())
