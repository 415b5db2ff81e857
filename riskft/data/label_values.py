"""Label values in files: whole numbers, apart from the rounding of a scale factor."""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from riskft.errors import first_few

WHOLE_WITHIN = 1e-3  #: Tolerance for whole numbers.
_FLOAT32 = 2.0**-23  # relative rounding of a scale factor, which NIfTI stores as float32
_MULTIPLES = 256  # largest multiple of a scale factor that is considered, as in 8-bit labels


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
