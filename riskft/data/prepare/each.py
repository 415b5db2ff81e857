"""Work on many cases, of which some may fail."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from riskft.data.records import Case
from riskft.errors import InputError, NoSpaceError

T = TypeVar("T")


def each_case(
    work: Callable[[Sequence[Case]], list[T]], cases: Sequence[Case]
) -> tuple[list[tuple[Case, T]], list[str]]:
    """Does some work on all cases; if that fails, on one at a time, and returns one line for each that fails."""
    try:
        return list(zip(cases, work(cases), strict=True)), []
    except NoSpaceError:
        raise
    except InputError as error:
        if len(cases) == 1:
            return [], list(error.problems) or [str(error)]
    done: list[tuple[Case, T]] = []
    problems: list[str] = []
    for case in cases:
        found, faults = each_case(work, [case])
        done += found
        problems += faults
    return done, problems
