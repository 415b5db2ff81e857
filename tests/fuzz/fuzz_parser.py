"""The parsers of the Lightning commands, built once for all draws: building one takes longer than many draws."""

from functools import lru_cache
from typing import Any

from lightning.pytorch.cli import LightningCLI

from riskft.build import Command

COMMANDS = ("fit", "validate", "test", "predict", "riskmap")
PARTS = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")


class _MadeError(Exception):
    """Carries what ``LightningCLI.setup_parser`` has made, which no command line has had a part in."""


class _Maker(Command):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _MadeError({name: getattr(self, name) for name in PARTS})


@lru_cache
def made_parsers() -> dict[str, dict[str, Any]]:
    """Returns each command's parser and its parts, by their names in ``LightningCLI``."""
    return {command: _made(command) for command in COMMANDS}


def _made(command: str) -> dict[str, Any]:
    try:
        _Maker([command])
    except _MadeError as made:
        return dict(made.args[0])
    raise AssertionError("LightningCLI has parsed nothing")


def use_made_parsers() -> None:
    """Lets the first Lightning command of this process use the parser that there is; others make their own."""
    original, unused = LightningCLI.setup_parser, [made_parsers()]

    def setup_parser(self: Command, *options: Any) -> None:
        if unused and self._given in unused[0]:
            vars(self).update(unused.pop()[self._given])
        else:
            original(self, *options)

    LightningCLI.setup_parser = setup_parser  # type: ignore[method-assign]
