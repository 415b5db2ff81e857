"""What ``riskft fit`` would make of a command line, without starting it."""

import contextlib
import functools
import io
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from riskft.cli import RiskCLI, run
from riskft.errors import InputError
from riskft.run_folder import RunOptions


class ParseOnly(RiskCLI):
    """Reads and checks the options of a command, and does nothing else."""

    def _set_seed(self) -> None:
        """Leaves the seed of this process alone."""

    def before_instantiate_classes(self) -> None:
        """Does nothing: whether the folder is free is for the sweep to say."""

    def instantiate_classes(self) -> None:
        """Does nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Does nothing."""


@functools.cache
def resolve(arguments: tuple[str, ...]) -> tuple[RunOptions, int]:
    """Returns where a run goes and its seed.

    Raises:
        InputError: If ``riskft fit`` would not take the arguments, with its message.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config: Any = run(["fit", *arguments], ParseOnly).config.fit
    except SystemExit:
        message = said.getvalue().removeprefix("riskft: ").partition("\n(all options")[0].strip()
        raise InputError(message) from None
    except OmegaConfBaseException as error:
        raise InputError(str(error).replace("\n", " ")) from error
    return RunOptions(**config.run.as_dict()), config.seed_everything
