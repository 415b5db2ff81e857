"""Merges the callbacks of several configs, whatever their order.

In jsonargparse a later list replaces an earlier one. That suits most lists (``data.augment``), but the callbacks of a
method, of ``trainer/ema.yaml`` and of the user's own file must all be kept.
"""

import logging
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from riskft.arguments.given import Option, nested
from riskft.distributed import is_first_rank
from riskft.errors import InputError

log = logging.getLogger(__name__)

CALLBACKS, DROP = "trainer.callbacks", "trainer.drop_callbacks"
#: Where jsonargparse looks for classes given without a module.
PACKAGES = ("lightning.pytorch.callbacks", "riskft")

Entry = dict[str, Any]
_Key = tuple[str, int]  # a class, and how many of it the same list has had


def merged_callbacks(options: Sequence[Option]) -> list[str]:
    """Returns a ``--config`` to append, with the merged callbacks; empty if they all come from one place.

    A class that is listed again keeps one entry, in which later options win. An empty list removes all earlier
    callbacks; null changes nothing. Raises InputError if ``trainer.drop_callbacks`` names a class that does not exist.
    """
    merged: dict[_Key, Entry] = {}
    last: _Key | None = None  # the callback listed last
    drop: dict[str, None] = {}
    places = 0
    for option, value in _callback_options(options):
        listed = value if isinstance(value, list) else [value]
        if option == DROP:
            drop.update(dict.fromkeys(map(str, listed)))
        elif option == CALLBACKS:
            if not all(isinstance(one, str) or _names_a_class(one) for one in listed):
                return []  # the parser reports it
            places += 1
            if value == []:
                merged.clear()
            last = _merge(merged, [{"class_path": one} if isinstance(one, str) else dict(one) for one in listed])
        elif last is not None:  # an option of the last callback, as in --trainer.callbacks.init_args.span 5
            path = option.removeprefix(f"{CALLBACKS}.").removeprefix("init_args.")
            merged[last] = _updated(merged[last], {"init_args": nested(path, value)})
    if places < 2 and not drop:
        return []
    dropped = {_class(name, strict=True) for name in drop}
    kept = [entry for (name, _), entry in merged.items() if name not in dropped]
    trainer = {"callbacks": kept, "drop_callbacks": list(drop)}
    config = yaml.safe_dump({"trainer": trainer}, default_flow_style=True, sort_keys=False, width=10**6)
    return ["--config", config]


def warn_of_two_methods(options: Sequence[Option]) -> None:
    """Warns if the configs of several methods are given, because the run would mix them."""
    configs = [option for option in options if option.name == "config"]
    methods = dict.fromkeys(str(value) for config in configs for _, value in config.values("run.method"))
    if len(methods) > 1 and is_first_rank():
        log.warning(
            "The configs set run.method to %s. Options of an earlier one stay unless a later one changes them. To run "
            "a single method, give no other method's config.",
            ", then to ".join(methods),
        )


def _callback_options(options: Sequence[Option]) -> Iterator[tuple[str, Any]]:
    """Yields the options about callbacks and their values, in order, without nulls."""
    for option in options:
        for wanted in (CALLBACKS, DROP):
            yield from ((name, value) for name, value in option.values(wanted) if value is not None)


def _merge(merged: dict[_Key, Entry], listed: Sequence[Entry]) -> _Key | None:
    """Adds a list and returns the key of its last entry; two entries of one class in the same list stay two."""
    seen: dict[str, int] = {}
    key = None
    for entry in listed:
        name = _class(entry["class_path"])
        seen[name] = seen.get(name, 0) + 1
        key = name, seen[name]
        merged[key] = _updated(merged[key], entry) if key in merged else entry
    return key


def _updated(before: Any, after: Any) -> Any:
    """Returns options updated with later ones; if those choose another class, the earlier options are dropped."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    if _names_a_class(before) and _class(after.get("class_path", before["class_path"])) != _class(before["class_path"]):
        return after
    return {**before, **{key: _updated(before.get(key), value) for key, value in after.items()}}


def _names_a_class(entry: object) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("class_path"), str)


def _class(given: object, *, strict: bool = False) -> str:
    """Returns the full name of a class, which may be given without its module."""
    path = str(given)
    for name in (path,) if "." in path else (f"{package}.{path}" for package in PACKAGES):
        try:
            found = pkgutil.resolve_name(name)
        except Exception:  # an import can raise anything; the parser reports it
            continue
        if isinstance(found, type):
            return f"{found.__module__}.{found.__qualname__}"
    if strict:
        raise InputError(f"{DROP}: there is no class '{path}'. Give a class as in trainer.callbacks.")
    return path
