"""Parses command lines as ``riskft fit`` would, without starting it."""

from riskft.build import Command
from riskft.errors import InputError, UsageError
from riskft.run.folder import RunOptions


class FitOptions:
    """A function of ``fit``'s arguments that builds the parser once and parses each command line once."""

    def __init__(self) -> None:
        self._command: Command | None = None
        self._known: dict[tuple[str, ...], tuple[RunOptions, int] | InputError] = {}

    def __call__(self, arguments: tuple[str, ...]) -> tuple[RunOptions, int]:
        """Returns where a run goes and its seed.

        Raises:
            InputError: If ``riskft fit`` would refuse the arguments, with its message.
        """
        if arguments not in self._known:
            try:
                self._known[arguments] = self._parsed(["fit", *arguments])
            except (InputError, UsageError) as error:
                self._known[arguments] = error if isinstance(error, InputError) else InputError(error.args[0])
        found = self._known[arguments]
        if isinstance(found, InputError):
            raise found
        return found

    def _parsed(self, line: list[str]) -> tuple[RunOptions, int]:
        if self._command is None:
            self._command = Command(line)
        else:
            self._command.parse_arguments(self._command.parser, line)
        return self._command.run_options, self._command.options.seed_everything
