"""Reading a checkpoint without running anything that it contains."""

import hashlib
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riskft.errors import InputError

_CONTAINERS = ("state_dict", "model_state_dict", "network_weights", "model", "network")
_PREFIXES = ("module.", "_orig_mod.", "network.", "net.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """What is of use in a checkpoint.

    Attributes:
        path: The file.
        state: Parameters and buffers by name, as in the file.
        class_names: Class names, background first, if riskft wrote the file; else None.
        in_channels: Number of input channels, if riskft wrote the file; else None.
    """

    path: Path
    state: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    in_channels: int | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a riskft or Lightning ``.ckpt`` or a plain state dict, with ``weights_only=True``.

    Raises:
        InputError: If the file is missing, truncated, holds no state dict, or needs unpickling of arbitrary objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint. Set model.source.checkpoint to an existing file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds Python objects besides tensors, and loading them could run code. Save its state dict "
            "alone: torch.save(network.state_dict(), file)."
        ) from error
    except Exception as error:  # on a broken file the unpickler also raises IndexError, struct.error and others
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({first}). Is the file complete?") from error
    state = _find_state(content)
    if state is None:
        raise InputError(f"{path}: no state dict found; looked at the top level and under {', '.join(_CONTAINERS)}.")
    options = content.get("riskft", {}) if isinstance(content, Mapping) else {}
    names = options.get("class_names")
    return Checkpoint(
        path=path,
        state=state,
        class_names=tuple(names) if names else None,
        in_channels=options.get("in_channels"),
    )


def _find_state(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping) and (inner := _find_state(content[key])) is not None:
            return inner
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    return tensors or None


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Returns a fingerprint of the tensors alone, whatever else the file holds and however it was written."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def aligned(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Strips wrappers' prefixes from the keys of a state, as many as make most of the wanted keys appear.

    Entries that do not carry a prefix which the others share are not the network's, and stay as they are.

    Args:
        state: Tensors by name.
        wanted: The network's own keys.
    """
    best = candidate = dict(state)
    while True:
        shared = [
            prefix for prefix in _PREFIXES if 2 * sum(key.startswith(prefix) for key in candidate) > len(candidate)
        ]
        if not shared:
            return best
        candidate = {key.removeprefix(shared[0]): value for key, value in candidate.items()}
        if len(set(candidate) & set(wanted)) > len(set(best) & set(wanted)):
            best = candidate
