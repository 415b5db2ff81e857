"""Objects that a config describes: what their classes refuse is the user's to mend, and told as that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser

from riskft.errors import InputError

SHOWN = 120


def refuse_as_input(parser: ArgumentParser) -> None:
    """Makes a parser build objects of other libraries in a way that turns what they refuse into InputError.

    Deferred ones, such as an optimizer, are built in that way too when their time comes. riskft's own classes raise
    InputError themselves, so that any other error of theirs is a fault of riskft and stays visible as one.
    """
    parser.add_instantiator(_built, object)


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
