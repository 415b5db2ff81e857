"""Reading a checkpoint: its parameters by name, and what it says of itself."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from riskft.errors import InputError
from riskft.source.packages import find_package
from riskft.source.unpickle import load_content

_CONTAINERS = ("state_dict", "model_state_dict", "network_weights", "model", "network", "net")
_PREFIXES = ("module.", "_orig_mod.", "network.", "net.", "model.", "backbone.")


@dataclass(frozen=True)
class Checkpoint:
    """What is of use in a checkpoint.

    Attributes:
        path: The file.
        state: Parameters and buffers by name, as in the file.
        class_names: What the output channels are, if riskft wrote the file or its folder says it; else None.
        in_channels: Number of input channels, if riskft wrote the file or its folder says it; else None.
    """

    path: Path
    state: dict[str, Tensor]
    class_names: tuple[str, ...] | None = None
    in_channels: int | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the weights of a file or of a model's folder, and runs nothing that is in them.

    A riskft or Lightning ``.ckpt``, a state dict by itself or inside a training checkpoint (``.pt``, ``.pth``,
    ``.safetensors``), or what ``riskft.source.packages`` knows; the latter's kernels are turned to riskft's axes.

    Raises:
        InputError: If there is no such file, it is broken, holds no state dict, or needs unpickling of arbitrary
            objects (``UntrustedError``).
    """
    if not path.exists():
        raise InputError(
            f"{path}: there is no such checkpoint. Set model.source.checkpoint to an existing file or folder."
        )
    package = find_package(path)
    if package is None and path.is_dir():
        raise _unknown_folder(path)
    file = path if package is None else package.weights
    content = load_content(file)
    state = find_state(content)
    if state is None:
        raise no_state(file)
    names, channels = own_description(content)
    if package is not None:
        names, channels = package.class_names or names, package.in_channels or channels
        if package.kernel_axes is not None:
            state = with_kernel_axes(state, package.kernel_axes)
    return Checkpoint(file, state, names, channels)


def find_state(content: Any) -> dict[str, Tensor] | None:
    """Returns the tensors by name in what a file holds, at the top or in one of the usual places, or None."""
    if isinstance(content, nn.Module):  # pickled whole, which only riskft convert can have loaded
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return None
    for key in _CONTAINERS:
        if (inner := find_state(content.get(key))) is not None:
            return inner
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)} or None


def no_state(path: Path) -> InputError:
    """Returns the error for a file without tensors by name."""
    return InputError(f"{path}: no state dict found; looked at the top level and under {', '.join(_CONTAINERS)}.")


def own_description(content: Any) -> tuple[tuple[str, ...] | None, int | None]:
    """Returns the class names and the number of channels that riskft wrote into a file, or None for each."""
    own = content.get("riskft") if isinstance(content, Mapping) else None
    if not isinstance(own, Mapping):
        return None, None
    names, channels = own.get("class_names"), own.get("in_channels")
    return (
        tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None,
        channels if isinstance(channels, int) else None,
    )


def _unknown_folder(path: Path) -> InputError:
    found = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return InputError(
        f"{path}: is a folder of no kind that riskft knows. It holds: {', '.join(found[:8]) or 'nothing'}{more}.",
        [
            "Known: nnU-Net v2 trained-model folders (plans.json, dataset.json, fold_0/), MONAI bundles (configs/, "
            "models/model.pt), MeshNet pairs (name.json, name.safetensors). Else give the file of weights itself."
        ],
    )


def with_kernel_axes(state: Mapping[str, Tensor], axes: Sequence[int]) -> dict[str, Tensor]:
    """Returns the state with the axes of all 3-D kernels in another order.

    Args:
        state: Tensors by name; those with 5 axes are kernels, (channels, channels, *spatial).
        axes: New spatial axis i is the old axis ``axes[i]``.
    """
    order = (0, 1, *(2 + axis for axis in axes))
    return {key: value.permute(order) if value.ndim == 5 else value for key, value in state.items()}


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
        shared = [prefix for prefix in _PREFIXES if _is_shared(prefix, candidate)]
        if not shared:
            return best
        candidate = {key.removeprefix(shared[0]): value for key, value in candidate.items()}
        if len(set(candidate) & set(wanted)) > len(set(best) & set(wanted)):
            best = candidate


def _is_shared(prefix: str, keys: Collection[str]) -> bool:
    """Returns whether most keys carry the prefix, and none would fall upon another without it."""
    carried = [key for key in keys if key.startswith(prefix)]
    return 2 * len(carried) > len(keys) and not any(key.removeprefix(prefix) in keys for key in carried)
