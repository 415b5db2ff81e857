"""Loads a checkpoint file without running any code in it."""

import json
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from riskft.errors import InputError, first_few, first_line
from riskft.files import read_json

INDEX = ".index.json"  #: Ending of the index of a sharded checkpoint, as Hugging Face's libraries write them.

# the names under which numpy 1 and 2 pickle scalars, dtypes and arrays
_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
# torch's errors for objects that it refuses to restore; those for broken files differ
_UNSAFE = re.compile(
    "unsupported (global|class)|unrecognized function|Trying to (instantiate|call)|Can only (build|create)",
    re.IGNORECASE,
)


class UntrustedError(InputError):
    """A file that can only be loaded by unpickling arbitrary objects, which may run code."""

    def __init__(self, path: Path, found: str) -> None:
        new = path.with_suffix(".safetensors")
        command = f"riskft convert {shlex.quote(str(path))} {shlex.quote(str(new))} --trust-pickle true"
        super().__init__(
            f"{path}: holds {found}, and loading it could run code of the file's author. Nothing was run.",
            [f"If you trust it: {command} (which runs that code), then set model.source.checkpoint to the new file."],
        )


class _Ignored:
    """Replaces numpy objects in a checkpoint (scores, learning curves): accepts and discards its arguments."""

    def __init__(self, *_: object) -> None:
        pass

    __setstate__ = __init__


def load_content(path: Path) -> Any:
    """Returns the content of a ``torch.save`` or ``.safetensors`` file, on the CPU and without numpy's values.

    A ``.safetensors`` file becomes {"state_dict": tensors by name, "riskft": riskft's own entry, maybe empty}. If
    ``path`` is the index of a sharded checkpoint, the shards become one dictionary. Raises InputError if it cannot be
    read, and UntrustedError if it holds objects that only unpickling can restore.
    """
    if path.name.endswith(INDEX) and path.is_file():
        parts = [load_content(part) for part in parts_of(path)]
        return {key: value for part in parts for key, value in part.get("state_dict", part).items()}
    refuse_other_files(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    inert: list[Any] = [(_Ignored, name) for name in _NUMPY]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(inert):
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it works, or fails below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = _unsafe_names(path)
        if names or _UNSAFE.search(str(error)):
            shown = f" ({', '.join(first_few(names))})" if names else ""
            raise UntrustedError(path, f"Python objects besides tensors{shown}") from error
        raise _unreadable(path, "not a pickle of torch.save") from error
    except Exception as error:  # a broken file also raises IndexError, struct.error and others
        raise _unreadable(path, first_line(error)) from error


def _unsafe_names(path: Path) -> list[str]:
    """Returns what a file would import besides tensors; empty for a broken file or the format before torch 1.6."""
    try:
        return sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - set(_NUMPY))
    except Exception:  # a broken file can raise almost any exception here
        return []


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: cannot be read as a checkpoint ({reason}). Is the file complete? Copy or download it again."
    )


def refuse_other_files(path: Path) -> None:
    """Refuses files that are not checkpoints, by their first bytes or, for archives, their list of contents.

    Raises UntrustedError for a TorchScript program, InputError for all others.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}).") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes). Copy or download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: is a Git LFS pointer and not the file itself. Run git lfs pull where it was cloned.")
    if head.lstrip().startswith(b"<"):
        raise InputError(f"{path}: is a web page, not a checkpoint. Download the file itself (it may need a login).")
    if path.suffix == ".json":
        raise InputError(f"{path}: is a JSON file, not a checkpoint. Give the file of weights.")
    if head.startswith(b"PK"):
        _refuse_other_archives(path)


def _refuse_other_archives(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _unreadable(path, f"its end is missing or damaged; it has {path.stat().st_size} bytes") from error
    if is_program(path):
        raise UntrustedError(path, "a TorchScript program")
    if not any(name.endswith("/data.pkl") for name in names):
        shown = ", ".join(names[:3]) or "nothing"
        raise InputError(f"{path}: is a zip archive that torch.save did not write: it holds {shown}. Unpack it first.")


def is_program(path: Path) -> bool:
    """Returns whether a zip archive is a TorchScript program."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs the package safetensors. Install it: pip install 'riskft[safetensors]'"
        ) from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            own = json.loads((file.metadata() or {}).get("riskft", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, first_line(error)) from error
    return {"state_dict": state, "riskft": own if isinstance(own, Mapping) else {}}


def index_in(folder: Path) -> Path | None:
    """Returns the index of a sharded checkpoint if the folder holds exactly one, else None."""
    found = sorted(folder.glob(f"*{INDEX}"))
    return found[0] if len(found) == 1 else None


def parts_of(index: Path) -> list[Path]:
    """Returns the files that an index names, in order; raises InputError if it is not one, or a file is missing."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        parts = [index.parent / name for name in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{index}: is not the index of a sharded checkpoint, expected JSON with a weight_map."
        ) from error
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        some = ", ".join(first_few(missing, 4))
        raise InputError(
            f"{index}: names {len(parts)} files, of which {len(missing)} are missing: {some}. Put them beside it."
        )
    return parts
