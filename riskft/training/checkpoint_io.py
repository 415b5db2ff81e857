"""Writes checkpoints atomically, and reads them with a check of what they hold."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from riskft.errors import InputError, refuse
from riskft.files import atomic_path

_PARTS = {
    **{"state_dict": dict, "loops": dict, "callbacks": dict, "hyper_parameters": dict, "riskft": dict},
    **{"epoch": int, "global_step": int, "pytorch-lightning_version": str},
    **{"optimizer_states": list, "lr_schedulers": list},
}


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file in the same folder, then renames it.

    Lightning writes to the system's temporary folder, which may be too small, and moves the file from there. Across
    file systems the move is a copy, and a process killed during the copy leaves half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint atomically; Lightning handles paths that are not local."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            torch.save(checkpoint, stream)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint; raises InputError if the file is damaged or is not a checkpoint."""
        try:
            content = super().load_checkpoint(path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: cannot be read ({reason}). Remove the file, or give another one by --ckpt_path, such as "
                "best.ckpt beside it."
            ) from error
        refuse(f"{path}: is not a checkpoint of a riskft run. Give another one by --ckpt_path:", _problems(content))
        return content


def _problems(content: object) -> list[str]:
    """Returns one line per part of a checkpoint that is missing or has the wrong type."""
    if not isinstance(content, dict):
        return [f"it holds a {type(content).__name__}, expected a mapping"]
    if missing := [name for name in ("state_dict", "pytorch-lightning_version") if name not in content]:
        return [f"it has no {' and no '.join(missing)}; weights to start from are given as --model.source.checkpoint"]
    return [
        f"its {name} is of type {type(content[name]).__name__}, expected {kind.__name__}"
        for name, kind in _PARTS.items()
        if name in content and not isinstance(content[name], kind)
    ]
