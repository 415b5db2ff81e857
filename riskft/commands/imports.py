"""Imports the parts of commands with a network sooner: torch, Lightning and MONAI bring 5000 modules."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from riskft.arguments.given import options_of
from riskft.compat import import_wandb


@contextmanager
def quick_imports(arguments: Sequence[str] = ()) -> Iterator[None]:
    """Inside the ``with`` block, imports do not search for garbage, which takes a fifth of their time.

    Args:
        arguments: Those of a command that logs to W&B unless they turn it off. Its classes look through all imported
            modules, so it is imported first, which takes 0.7 s instead of 2.
    """
    gc.disable()
    try:
        if arguments and _may_log(arguments):
            import_wandb()
        yield
    finally:
        gc.enable()


def _may_log(arguments: Sequence[str]) -> bool:
    enabled = [value for option in options_of(arguments) for _, value in option.values("wandb.enabled")]
    return os.environ.get("WANDB_MODE") != "disabled" and enabled[-1:] != [False]
