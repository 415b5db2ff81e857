"""Unpickling a file whose classes are not all to be had here, as those of somebody's training script."""

import pickle
from types import SimpleNamespace
from typing import Any


class _StandIn:
    """Takes the place of an object of an unknown class: accepts all that a pickle says of it, and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        """As a list's."""

    def extend(self, _: object) -> None:
        """As a list's."""


def forgiving_pickle(left_out: set[str]) -> Any:
    """Returns what ``torch.load`` takes as ``pickle_module``, for files that are trusted.

    Args:
        left_out: Gets the names of the classes that cannot be imported, whose objects are left out.
    """

    class Unpickler(pickle.Unpickler):  # all that is unpickled here is trusted
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                left_out.add(f"{module}.{name}")
                return _StandIn

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError)
