"""Parsers of the Lightning commands, made before processes are forked: making one takes longer than many commands."""

from typing import Any

from lightning.pytorch.cli import LightningCLI

from riskft.build import Command
from riskft.cli import TRAINER_COMMANDS

PARTS = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
#: Each command's parser and its parts, by their names in ``LightningCLI``.
_MADE: dict[str, dict[str, Any]] = {}


class _MadeError(Exception):
    """Carries what ``LightningCLI.setup_parser`` has made, which no command line has had a part in."""


class _Maker(Command):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _MadeError({name: getattr(self, name) for name in PARTS})


def make_parsers(*commands: str) -> None:
    """Makes the parsers of those commands that have a trainer, for the processes that are forked from now on."""
    for command in commands:
        if command in TRAINER_COMMANDS and command not in _MADE:
            try:
                _Maker([command])
            except _MadeError as made:
                _MADE[command] = made.args[0]


def use_made_parsers() -> None:
    """Lets the first Lightning command of a forked process use the parser that there is; others make their own."""
    original, unused = LightningCLI.setup_parser, [_MADE]

    def setup_parser(self: Command, *options: Any) -> None:
        if unused and self._given in unused[0]:
            vars(self).update(unused.pop()[self._given])
        else:
            original(self, *options)

    LightningCLI.setup_parser = setup_parser  # type: ignore[method-assign]
