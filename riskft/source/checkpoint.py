"""Reads a checkpoint: its tensors by name and its own metadata."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from riskft.errors import InputError, first_few
from riskft.run.record import Record, read_record
from riskft.source.checkpoint_file import index_in, load_content
from riskft.source.copies import states_in
from riskft.source.packages import find_package


@dataclass(frozen=True)
class Checkpoint:
    """What riskft uses of a checkpoint."""

    path: Path  #: The file.
    #: Each dictionary of tensors by its path in the file, the likeliest first; at least one.
    states: dict[str, dict[str, Tensor]]
    #: Names of the output channels if riskft wrote the file or its folder states them; else None.
    class_names: tuple[str, ...] | None = None
    #: Number of input channels if riskft wrote the file or its folder states it; else None.
    in_channels: int | None = None
    record: Record | None = None  #: How the file was made if riskft wrote it; else None.

    @property
    def state(self) -> dict[str, Tensor]:
        """The likeliest dictionary, with its keys as in the file."""
        return next(iter(self.states.values()))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads the weights in a file or a model's folder without running any code from it.

    Accepts a riskft or Lightning ``.ckpt``, a state dict alone or anywhere in a training checkpoint (``.pt``, ``.pth``,
    ``.safetensors``), a sharded checkpoint with an index, and the models of ``riskft.source.packages``, whose kernels
    are permuted to riskft's axis order. Raises InputError if the file does not exist, is broken, holds no state dict,
    or can only be loaded by unpickling arbitrary objects (``UntrustedError``).
    """
    if not path.exists():
        raise InputError(
            f"{path}: there is no such checkpoint. Set model.source.checkpoint to an existing file or folder."
        )
    package = find_package(path)
    if package is None and path.is_dir():
        if (index := index_in(path)) is None:
            raise _unknown_folder(path)
        path = index
    file = path if package is None else package.weights
    content = load_content(file)
    states = states_of(content, file)
    names, channels = own_description(content)
    if package is not None:
        names, channels = package.class_names or names, package.in_channels or channels
        if package.kernel_axes is not None:
            states = {path: with_kernel_axes(state, package.kernel_axes) for path, state in states.items()}
    record = read_record(content.get("riskft")) if isinstance(content, Mapping) else None
    return Checkpoint(file, states, names, channels, record)


def states_of(content: Any, path: Path) -> dict[str, dict[str, Tensor]]:
    """Returns ``states_in`` the content of a file; raises InputError if there is none."""
    if not (states := states_in(content)):
        raise InputError(f"{path}: no state dict found: none of its dictionaries holds tensors by name.")
    return states


def own_description(content: Any) -> tuple[tuple[str, ...] | None, int | None]:
    """Returns the class names and number of input channels that riskft wrote into a file, None for what is absent."""
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
    return InputError(
        f"{path}: is not a kind of folder that riskft knows. It holds: {', '.join(first_few(found, 8)) or 'nothing'}.",
        [
            "Known: nnU-Net v2 trained-model folders (plans.json, dataset.json, fold_0/), MONAI bundles (configs/, "
            "models/model.pt), MeshNet pairs (name.json, name.safetensors). Otherwise give the file of weights itself."
        ],
    )


def with_kernel_axes(state: Mapping[str, Tensor], axes: Sequence[int]) -> dict[str, Tensor]:
    """Returns the state with the spatial axes of all 3-D kernels permuted: new axis i is the old axis ``axes[i]``."""
    order = (0, 1, *(2 + axis for axis in axes))
    return {key: value.permute(order) if value.ndim == 5 else value for key, value in state.items()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Returns a fingerprint of the tensors alone, independent of the file's format and its other content."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
