"""What riskft raises when the user's input is not what it needs."""

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input, found at the border, with all bad cases in one report.

    The command line prints its message without a traceback and exits with 1.

    Args:
        title: One line: what was expected.
        problems: One line a bad case: which file, what was found, what to do.
    """

    def __init__(self, title: str, problems: Sequence[str] = ()) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__("\n".join([title, *(f"  - {problem}" for problem in self.problems)]))
