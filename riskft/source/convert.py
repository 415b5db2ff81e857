"""Extracts the weights from a file that can only be loaded by unpickling."""

import json
import logging
import pickle
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from riskft.errors import InputError, first_line
from riskft.files import atomic_path
from riskft.run.places import refuse_unwritable
from riskft.source.checkpoint import own_description, states_of
from riskft.source.checkpoint_file import UntrustedError, is_program, load_content
from riskft.source.copies import USUAL

log = logging.getLogger(__name__)

_ENDINGS = (".safetensors", ".pt", ".pth")


def convert(old: Path, new: Path, *, trust_pickle: bool = False, overwrite: bool = False) -> int:
    """Writes only a checkpoint's weights, with riskft's own entry if any, and returns the number of tensors.

    If the file holds several copies of the weights (a moving average, for example), all are written;
    ``model.source.weights`` chooses among them. ``old`` is any checkpoint file or TorchScript program, ``new`` a
    .safetensors, .pt or .pth file, written atomically. With ``trust_pickle`` everything is unpickled, which runs code
    that the file names; a file that holds only tensors and plain values does not need it, and then nothing is run.
    Raises InputError if the file cannot be read, holds no state dict, needs ``trust_pickle``, or ``new`` exists without
    ``overwrite``.
    """
    _check_new(new, overwrite)
    if not old.is_file():
        raise InputError(f"{old}: is {'a folder' if old.is_dir() else 'absent'}, expected the file of weights.")
    try:
        content = load_content(old)
    except UntrustedError:
        if not trust_pickle:
            raise
        content = _unpickled(old)
    state = _with_copies(states_of(content, old))
    # cloned because views would save their whole storage, and safetensors refuses shared storage
    alone = {key: value.detach().as_subclass(Tensor).cpu().contiguous().clone() for key, value in state.items()}
    names, channels = own_description(content)
    own = {"class_names": list(names), "in_channels": channels} if names is not None else {}
    _write(new, alone, own)
    return len(alone)


def _check_new(new: Path, overwrite: bool) -> None:
    if new.suffix not in _ENDINGS:
        raise InputError(f"{new}: has the ending '{new.suffix}', expected one of {', '.join(_ENDINGS)}.")
    if new.is_dir():
        raise InputError(f"{new}: is a folder, expected the name of a file to write.")
    refuse_unwritable({"NEW": new.parent})
    if new.exists() and not overwrite:
        raise InputError(f"{new}: exists. Choose another name, or add --overwrite true.")
    if new.suffix == ".safetensors" and find_spec("safetensors") is None:  # checked before any code of the file runs
        raise InputError(
            f"{new}: writing it needs the package safetensors (pip install 'riskft[safetensors]'). Or give a name "
            "that ends in .pt."
        )


def _with_copies(states: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Returns the first state, and other states with the same keys, which get their path as a prefix."""
    (path, first), *rest = states.items()
    if len(first) < max(map(len, states.values())) and path not in ("", *USUAL):
        path = max(states, key=lambda key: len(states[key]))
        first, rest = states[path], [item for item in states.items() if item[0] != path]
    copies = {other: state for other, state in rest if state.keys() == first.keys()}
    if copies:
        log.info(
            "The file holds %s copies of the weights and all are written. The others are: %s.",
            len(copies) + 1,
            ", ".join(copies),
        )
    return first | {f"{other}.{key}": value for other, state in copies.items() for key, value in state.items()}


def _unpickled(path: Path) -> Any:
    """Returns the content of a file and runs the code that it names; nothing else in riskft does this."""
    left_out: set[str] = set()
    try:
        if zipfile.is_zipfile(path) and is_program(path):
            return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_forgiving_pickle(left_out))
    except Exception as error:  # the file's code may raise anything
        raise InputError(
            f"{path}: loading it failed ({first_line(error)}). Install the packages that it was saved with."
        ) from error
    if left_out:
        log.info("%s: left out what cannot be imported here: %s", path, ", ".join(sorted(left_out)))
    return content


def _write(new: Path, state: dict[str, Tensor], own: dict[str, Any]) -> None:
    with atomic_path(new) as temporary:
        if new.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, temporary, metadata={"format": "pt", **({"riskft": json.dumps(own)} if own else {})})
        else:
            torch.save({"state_dict": state, **({"riskft": own} if own else {})}, temporary)


class _StandIn:
    """Replaces an object of an unknown class: accepts and discards what a pickle passes."""

    def __new__(cls, *_: object, **__: object) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = __init__


def _forgiving_pickle(left_out: set[str]) -> Any:
    """Returns a ``pickle_module`` for ``torch.load`` that adds the classes it cannot import to ``left_out``."""

    class Unpickler(pickle.Unpickler):  # only trusted files come here
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                left_out.add(f"{module}.{name}")
                return _StandIn

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError)
