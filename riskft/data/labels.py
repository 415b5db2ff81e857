"""Maps a data set's label values, whole numbers apart from the rounding of a scale factor, to a task's classes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from riskft.errors import InputError, first_few, refuse

IGNORE_INDEX = 255  #: Class index of ignored voxels, which do not count in any loss, statistic or metric.
WHOLE_WITHIN = 1e-3  #: Tolerance for whole numbers.
_FLOAT32 = 2.0**-23  # relative rounding of a scale factor, which NIfTI stores as float32
_MULTIPLES = 256  # largest multiple of a scale factor that is considered, as in 8-bit labels


@dataclass(frozen=True)
class LabelMap:
    """Maps raw label values to contiguous class indices: 0 is background, then the classes in their order.

    Args:
        classes: Foreground classes, each with its raw values, for example ``{whole_tumour: [1, 2, 4]}`` or
            ``{oedema: [2], core: [1, 4]}``. Values may not overlap.
        background: Raw values that become background. Known values of the layout that are in no class (2 in BraTS
            for ``core: [1, 4]``) become background as well.
        ignore: Raw values that do not count in any loss, statistic or metric (class index 255).
        regions: Regions that may overlap, each a union of whole classes given by raw values, for example
            ``{whole_tumour: [1, 2, 4], core: [1, 4], enhancing: [4]}``. The network still predicts the classes, which
            exclude each other; the regions are scored (Dice, HD95, the choice of the best checkpoint).

    Raises:
        InputError: If there is no class, a class is empty or called ``background``, a raw value is used twice, or a
            region is not a union of classes.
    """

    classes: dict[str, list[int]]
    background: list[int] = field(default_factory=lambda: [0])
    ignore: list[int] = field(default_factory=list)
    regions: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        most = IGNORE_INDEX - 1
        count = len(self.classes)
        problems = [f"labels.classes has {count} classes, expected at most {most}: merge some"] if count > most else []
        if not self.classes:
            problems.append("labels.classes is empty: name at least one class, for example {whole_tumour: [1, 2, 4]}")
        if "background" in self.classes:
            problems.append("labels.classes names 'background': put its values into labels.background")
        owner: dict[int, str] = {}
        groups = {**self.classes, "background": self.background, "ignore": self.ignore}
        for name, values in groups.items():
            if not values and name in self.classes:
                problems.append(f"labels.classes.{name} has no values")
            for value in values:
                if value in owner:
                    problems.append(f"label value {value} is in both '{owner[value]}' and '{name}': keep it in one")
                owner[value] = name
        for region, wanted in self.regions.items():
            if not wanted:
                problems.append(f"labels.regions.{region} has no values")
            for name, values in groups.items():
                if (part := set(values) & set(wanted)) and (name not in self.classes or part != set(values)):
                    expected = "whole classes" if name in self.classes else "foreground classes only"
                    problems.append(
                        f"labels.regions.{region} takes {sorted(part)} of '{name}' {values}: regions are made of "
                        f"{expected}"
                    )
            if strange := sorted(set(wanted) - set(owner)):
                problems.append(f"labels.regions.{region} has the values {strange}, which no class has")
        refuse("The label map is not usable:", problems)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by index, background first."""
        return ("background", *self.classes)

    @property
    def scored(self) -> dict[str, tuple[int, ...]]:
        """The class indices of each region, or of each foreground class without regions, by name."""
        if not self.regions:
            return {name: (index,) for index, name in enumerate(self.classes, start=1)}
        return {
            region: tuple(
                index for index, values in enumerate(self.classes.values(), start=1) if set(values) <= set(wanted)
            )
            for region, wanted in self.regions.items()
        }

    def with_known(self, known: Iterable[int]) -> "LabelMap":
        """Returns a copy in which all other known values of the layout are background."""
        used = {value for values in self.classes.values() for value in values} | {*self.ignore, *self.background}
        return replace(self, background=[*self.background, *sorted(set(known) - used)])

    def unknown(self, values: Iterable[float]) -> list[float]:
        """Returns the raw values that are not in the map, sorted."""
        used = {value for group in self.classes.values() for value in group} | {*self.ignore, *self.background}
        return sorted({float(value) for value in values} - {float(value) for value in used})

    def to_classes(self, raw: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Maps an array of raw values, any shape, to uint8 class indices of the same shape.

        Values within ``WHOLE_WITHIN`` of a whole number are rounded.

        Raises:
            InputError: If a value is not whole or not in the map.
        """
        rounded, whole = nearest_whole(raw)
        if not whole.all():
            found = np.unique(raw)
            if not np.isfinite(found).all():
                raise InputError("Label values are NaN or infinite. Set them to a number, such as 0 for background.")
            raise InputError(f"Label {why_not_whole(found)}.")
        if rounded.size and rounded.min() >= 0 and rounded.max() < 1 << 16:  # the usual case, and much faster
            codes: npt.NDArray[Any] = rounded.astype(np.uint16)
            # slices one at a time, because bincount takes 8 bytes for each voxel
            slices = codes.T if codes.flags.fnc else codes
            present = sum(np.bincount(one.ravel(), minlength=1 << 16) for one in slices) > 0
            values = np.arange(1 << 16)
        else:
            values, codes = np.unique(rounded, return_inverse=True)
            present = np.ones(values.shape, dtype=bool)
        if unknown := self.unknown(values[present].tolist()):
            raise InputError(
                f"Label values {written(unknown)} are in no class. Add them to labels.classes, labels.background or "
                "labels.ignore."
            )
        classes = np.zeros(values.shape, dtype=np.uint8)
        for index, members in enumerate(self.classes.values(), start=1):
            classes[np.isin(values, members)] = index
        classes[np.isin(values, self.ignore)] = IGNORE_INDEX
        mapped: npt.NDArray[np.uint8] = classes[codes].reshape(raw.shape)  # the inverse is flat in NumPy 1
        return mapped


def nearest_whole(values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Returns values rounded (integers as they are), and where they were whole within the tolerance (not where NaN)."""
    if values.dtype.kind in "iub":
        return values, np.ones(values.shape, dtype=bool)
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):
        near = np.abs(values - rounded) <= np.maximum(WHOLE_WITHIN, _FLOAT32 * np.abs(rounded))
    return rounded, near & np.isfinite(values)


def written(values: Iterable[Any]) -> str:
    """Writes the first five values with the digits that tell them apart: 2.004, not 2."""
    # str gives the shortest text for a value in its own precision
    return ", ".join(first_few(values, 5, lambda value: f"{float(str(value)):.10g}"))


def why_not_whole(values: npt.NDArray[np.floating[Any]]) -> str:
    """Says which of a label's distinct values are not whole, what may be the cause, and what to do."""
    _, whole = nearest_whole(values)
    found = f"values are not whole: {written(values[~whole])}"
    step = common_step(values)
    if step is None:
        return f"{found}. The label may have been interpolated: resample the original by nearest neighbour"
    if np.any(whole & (values != 0)):
        return (
            f"{found}. All are multiples of {step:.7g}: divide them by it if it is a scale factor (scl_slope), or "
            "resample the original by nearest neighbour if they were interpolated"
        )
    return (
        f"{found}. All are multiples of {step:.7g}, which looks like a scale factor (scl_slope): divide the values "
        "by it, and save them as integers"
    )


def common_step(values: npt.NDArray[np.floating[Any]]) -> float | None:
    """Returns the largest common divisor of all values, if it is not whole and no multiple exceeds 256; else None."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)]).astype(np.float64)
    if not sizes.size or sizes.size > 2 * _MULTIPLES:
        return None
    near = 1e-3 * float(sizes.min())
    step = reduce(lambda one, other: _divisor(one, other, near), sizes.tolist())
    multiples = np.rint(sizes / step)
    if multiples.max() > _MULTIPLES or np.abs(sizes / step - multiples).max() > 1e-2:
        return None
    step = float(sizes.max() / multiples.max())  # the most exact
    return step if abs(step - round(step)) > 1e-5 else None


def _divisor(one: float, other: float, near: float) -> float:
    """Euclid's algorithm, for numbers with rounding errors of up to ``near``."""
    while other > near:
        one, other = other, one % other
        if one - other < near:  # the remainder equals the divisor up to rounding
            other = 0.0
    return one
