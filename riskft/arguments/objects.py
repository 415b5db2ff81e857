"""Builds the objects of a config, and reports what their classes refuse as bad input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentParser

from riskft.arguments.parser import brief
from riskft.errors import InputError

SHOWN = 120


@contextmanager
def refused_objects(parser: ArgumentParser) -> Iterator[None]:
    """Turns errors of other libraries' classes into InputError while a parser builds objects.

    This covers objects that are built later too, such as an optimizer, and nested options of the wrong type, which the
    parser notices only now. riskft's own classes raise InputError themselves, so any other error of theirs is a bug and
    keeps its traceback.
    """
    parser.add_instantiator(_built, object)
    try:
        yield
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        if (told := _behind(error)) is not None:
            raise told  # noqa: B904 - it keeps its own cause
        if not _raised_in(error, "jsonargparse"):
            raise
        raise InputError(f"The options cannot be used: {brief(str(error))}") from error


def _behind(error: BaseException) -> InputError | None:
    """Returns the InputError that jsonargparse wraps if the option takes several types."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, InputError):
        behind = behind.__cause__ or behind.__context__
    return behind


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether a package itself raised an error, not code that it called."""
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
    """Turns an error while the named object is built into an InputError with the message and the options."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        given = ", ".join(f"{key}={_brief(value)}" for key, value in options.items())
        problems = [f"given are {given}"] if given else []
        raise InputError(f"{name} cannot be built with the options given: {reason}.", problems) from error


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
