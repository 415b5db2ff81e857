"""The parser of the Lightning commands, made once for all draws: making it takes longer than most of them."""

from functools import lru_cache
from typing import Any

from lightning.pytorch.cli import LightningCLI

from riskft.build import Command

PARTS = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")


class _MadeError(Exception):
    """Carries what ``LightningCLI.setup_parser`` has made, which no command line has had a part in."""


class _Maker(Command):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _MadeError({name: getattr(self, name) for name in PARTS})


@lru_cache
def made_parser() -> dict[str, Any]:
    """Returns the parser and its parts, by their names in ``LightningCLI``."""
    try:
        _Maker(["fit"])
    except _MadeError as made:
        return dict(made.args[0])
    raise AssertionError("LightningCLI has parsed nothing")


def use_made_parser() -> None:
    """Lets the first Lightning command of this process use the parser that there is; others make their own."""
    original, unused = LightningCLI.setup_parser, [made_parser()]

    def setup_parser(self: LightningCLI, *options: Any) -> None:
        if unused:
            vars(self).update(unused.pop())
        else:
            original(self, *options)

    LightningCLI.setup_parser = setup_parser  # type: ignore[method-assign]
