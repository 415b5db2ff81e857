"""Lengths that are given as a count or as a part of the run."""

import math

from riskft.errors import InputError


def is_part(value: float) -> bool:
    """Whether a length is a part of the run, a number between 0 and 1, and not a count."""
    return isinstance(value, float) and 0 < value < 1


def check_length(name: str, value: float, least: int) -> None:
    """Raises InputError unless a length is a count or a part of the run.

    Args:
        name: The option, for the message.
        value: What was given.
        least: The smallest count.
    """
    whole = not isinstance(value, bool) and math.isfinite(value) and value == int(value) and value >= least
    if not whole and not is_part(value):
        raise InputError(
            f"Expected argument `{name}` to be at least {least}, or a part of the run between 0 and 1, but got {value}"
        )


def counted(value: float, total: float, least: int = 0) -> int:
    """Returns a length as a count.

    Args:
        value: A count, or a part of the run.
        total: What the run has in all.
        least: The smallest count that a part may come to.

    Raises:
        InputError: If a part is asked of a run without end.
    """
    if not is_part(value):
        return int(value)
    if not math.isfinite(total):
        raise InputError(f"{value} of a run without end: set trainer.max_epochs or trainer.max_steps.")
    return max(least, round(value * total))
