"""Objects that a config describes: what their classes refuse is the user's to mend, and told as that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser

from riskft.arguments.parser import brief
from riskft.errors import InputError

SHOWN = 120


@contextmanager
def refused_objects(parser: ArgumentParser) -> Iterator[None]:
    """Makes a parser build objects in a way that turns what other libraries refuse into InputError.

    Deferred ones, such as an optimizer, are built in that way too when their time comes. riskft's own classes raise
    InputError themselves, so any other error of theirs is a fault of riskft and stays visible as one.

    Args:
        parser: Builds the objects inside.

    Raises:
        InputError: If a class of another library refuses its options, or the parser finds a value of another type than
            an option takes, which it notices in nested options only now.
    """
    parser.add_instantiator(_built, object)
    try:
        yield
    except ValueError as error:
        if isinstance(error, InputError) or not _raised_in(error, "jsonargparse"):
            raise
        raise InputError(f"The options cannot be used: {brief(str(error))}") from error


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether a package's own code raised an error, not code that it called."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and str(last.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == package


def _built(class_type: type, *args: Any, **kwargs: Any) -> Any:
    if class_type.__module__.partition(".")[0] == "riskft":
        return class_type(*args, **kwargs)
    with refused_by(f"{class_type.__module__}.{class_type.__qualname__}", kwargs):
        return class_type(*args, **kwargs)


@contextmanager
def refused_by(name: str, options: dict[str, Any]) -> Iterator[None]:
    """Turns an error of what is built inside into InputError.

    Args:
        name: What is built, as a config names it.
        options: What it is built with.

    Raises:
        InputError: With the error's message and the options.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        given = ", ".join(f"{key}={_brief(value)}" for key, value in options.items())
        problems = [f"given are {given}"] if given else []
        raise InputError(f"{name} cannot be made with the options that it is given: {reason}.", problems) from error


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
