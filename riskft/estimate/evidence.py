"""What a prediction says about its errors: its voxels, counted by the entropies of the network and of the EEP.

A few thousand counts stand for a volume, so calibration uses every voxel of every labelled case and keeps none of the
volumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import entr, expit

from riskft.data.io.memory import planes_at_once
from riskft.data.labels import IGNORE_INDEX

Array = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]

BINS = 64
LOWEST = -14.0  #: Lower end of the scale of ``error_logit``: an error in a million voxels.
_FINE = 2048  #: Points at which the entropy is tabulated.


def entropy(probabilities: npt.NDArray[np.floating]) -> Volume:
    """Returns the entropy in nats, (*spatial) float32, of probabilities (K, *spatial)."""
    total = np.zeros(probabilities.shape[1:], dtype=np.float32)
    for one in probabilities:  # one class at a time, to save memory
        total += entr(np.clip(one, 0, 1))
    return total


def error_logit(nats: npt.NDArray[np.floating], classes: int) -> Array:
    """Returns the logit of the error probability that an entropy (any shape) stands for, if K classes are possible.

    It is the e with ``H = -e log(e / (K - 1)) - (1 - e) log(1 - e)``: the most probable class is wrong with probability
    e, and all others are equally probable. With two classes this is the probability of the other class, so the
    entropy loses nothing. The scale is from ``LOWEST`` to log(K - 1), where all classes are equally probable.
    """
    logits = np.linspace(LOWEST, np.log(classes - 1), _FINE)
    error = expit(logits)
    found: Array = np.interp(nats, entr(error) + entr(1 - error) + error * np.log(classes - 1), logits)
    return found


def bin_logits(classes: int) -> Array:
    """Returns the centres of the bins of ``error_logit``, (BINS,)."""
    return np.linspace(LOWEST, np.log(classes - 1), BINS)


def _bin_of(nats: npt.NDArray[np.floating], classes: int) -> npt.NDArray[np.int64]:
    share = (error_logit(nats, classes) - LOWEST) / (np.log(classes - 1) - LOWEST)
    found: npt.NDArray[np.int64] = np.rint(share * (BINS - 1)).astype(np.int64)
    return found


@dataclass(frozen=True)
class ClassEvidence:
    """Voxels that may belong to a class, or to a region of several, by bin, (BINS, E) float64."""

    predicted: Array  #: Number of voxels predicted to belong to it.
    #: Of these, the sum of the shares that the region's other classes have of the probability of all other classes.
    inside: Array
    outside: Array  #: The sum of the class's shares of the probability of all other classes, where not predicted.


@dataclass(frozen=True)
class CaseEvidence:
    """The voxels of a prediction by bin. E is ``BINS`` with an EEP, else 1."""

    voxels: Array  #: Number of voxels, (BINS, E).
    classes: int  #: Number of classes K, background included.
    scored: Mapping[str, ClassEvidence]  #: By class or region.
    wrong: Array | None = None  #: Number of wrong voxels if there is a label, (BINS, E).
    dice: Mapping[str, float] = field(default_factory=dict)  #: By class or region if there is a label; may be NaN.

    @property
    def has_eep(self) -> bool:
        """Whether the voxels are counted by the EEP's entropy too."""
        return bool(self.voxels.shape[1] > 1)

    def features(self) -> tuple[Array, Array]:
        """Returns each bin's error logits by the network's and the EEP's entropy, (BINS, 1) and (1, E); 0 without."""
        logits = bin_logits(self.classes)
        return logits[:, None], logits[None] if self.has_eep else np.zeros((1, 1))


def evidence_of(
    probabilities: Volume,
    eep_entropy: Volume | None,
    scored: Mapping[str, Sequence[int]],
    truth: Classes | None = None,
    dice: Mapping[str, float] | None = None,
) -> CaseEvidence:
    """Counts the voxels of a prediction.

    Args:
        probabilities: The network's, (K, X, Y, Z).
        eep_entropy: Entropy of the EEP in nats, (X, Y, Z), or None without phase 1.
        scored: Class indices of each class or region.
        truth: The label's classes, (X, Y, Z); voxels of 255 are not counted. None without a label.
        dice: With a label, the Dice by class or region.
    """
    classes, second = len(probabilities), 1 if eep_entropy is None else BINS
    size = BINS * second
    voxels, wrong = np.zeros(size), np.zeros(size)
    sums = {name: np.zeros((3, size)) for name in scored}
    for here in slabs(probabilities.shape):
        own = probabilities[:, here].reshape(classes, -1)
        where = _bin_of(entropy(own), classes)
        if eep_entropy is not None:
            where = where * BINS + _bin_of(eep_entropy[here].reshape(-1), classes)
        if truth is not None:
            label = truth[here].reshape(-1)
            counted = label != IGNORE_INDEX
            own, where, label = own[:, counted], where[counted], label[counted]
            wrong += np.bincount(where[own.argmax(0) != label], minlength=size)
        voxels += np.bincount(where, minlength=size)
        found, top = own.argmax(0), own.max(0)
        rest = np.maximum(own.sum(0) - top, np.finfo(np.float32).tiny)
        for name, indices in scored.items():
            within = np.isin(found, indices)
            mass = own[list(indices)].sum(0)
            share = np.clip(np.where(within, mass - top, mass) / rest, 0, 1)
            sums[name][0] += np.bincount(where[within], minlength=size)
            sums[name][1] += np.bincount(where[within], share[within], minlength=size)
            sums[name][2] += np.bincount(where[~within], share[~within], minlength=size)
    by_class = {name: ClassEvidence(*found.reshape(3, BINS, second)) for name, found in sums.items()}
    labelled = None if truth is None else wrong.reshape(BINS, second)
    return CaseEvidence(voxels.reshape(BINS, second), classes, by_class, labelled, dice or {})


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Yields slices along x that cover a volume (..., X, Y, Z) part by part."""
    step = planes_at_once(shape)
    for start in range(0, shape[-3], step):
        yield slice(start, start + step)
