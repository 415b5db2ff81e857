"""What riskft raises for input that it cannot use, and how messages cut long lists short."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Bad input, found at the border, with all bad cases in one report.

    The command line prints its message without a traceback and exits with 1.

    Args:
        title: One line: what was expected.
        problems: One line per problem: which file, what was found, what to do.
    """

    def __init__(self, title: str, problems: Sequence[str] = ()) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))


def refuse(title: str, problems: Sequence[str]) -> None:
    """Raises InputError with these problems, if there are any."""
    if problems:
        raise InputError(title, problems)


class UsageError(Exception):
    """A command line that the parser refuses. The message says why, and where to read more."""


class NoSpaceError(InputError):
    """A file could not be written because its file system is full or its size is limited."""


class ProcessLost(RuntimeError):  # noqa: N818
    """Another process of the run died, hangs, or is in another phase. The command line prints only the message."""


class Terminated(SystemExit):
    """A SIGTERM arrived. Lightning's loops raise ``SIGTERMException`` for it, see ``is_terminated``."""


def is_terminated(error: BaseException | None) -> bool:
    """Whether an error is ``Terminated`` or Lightning's own (by its name, because importing it takes seconds)."""
    return isinstance(error, Terminated) or type(error).__name__ == "SIGTERMException"


def first_line(error: BaseException) -> str:
    """Returns an error's kind and the first line of its message, shortened."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:160].rstrip(": ")


def first_few(items: Iterable[T], most: int = 3, text: Callable[[T], str] = str) -> list[str]:
    """Returns the first ``most`` items as text, then "and 2 more" if there are more."""
    every = list(items)
    return [*map(text, every[:most]), *([f"and {len(every) - most} more"] if len(every) > most else [])]
