"""Lengths given as a count or as a fraction of the run."""

import math

from riskft.errors import InputError


def is_part(value: float) -> bool:
    """Whether a length is a fraction of the run, between 0 and 1, not a count."""
    return isinstance(value, float) and 0 < value < 1


def check_length(name: str, value: float, least: int) -> None:
    """Raises InputError unless an option's value is a count of at least ``least`` or a fraction of the run."""
    whole = not isinstance(value, bool) and math.isfinite(value) and value == int(value) and value >= least
    if not whole and not is_part(value):
        raise InputError(
            f"Expected argument `{name}` to be at least {least}, or a fraction of the run between 0 and 1, but got "
            f"{value}"
        )


def counted(value: float, total: float, least: int = 0) -> int:
    """Returns a length, a count or a fraction of the run's ``total``, as a count; a fraction gives at least ``least``.

    Raises:
        InputError: If it is a fraction and the run has no end.
    """
    if not is_part(value):
        return int(value)
    if not math.isfinite(total):
        raise InputError(f"A length of {value} of the run needs an end: set trainer.max_epochs or trainer.max_steps.")
    return max(least, round(value * total))
