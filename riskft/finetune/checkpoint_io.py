"""Writing checkpoints so that each is whole or absent."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from riskft.errors import InputError
from riskft.files import atomic_path


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes it into the system's temporary folder, and moves it: from another file system that is a copy, of
    which a kill leaves half; and the folder may be too small.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint; paths that are no local files are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as stream:
            torch.save(checkpoint, stream)

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint.

        Raises:
            InputError: If the file is damaged.
        """
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: cannot be read ({reason}). Remove the file, or give another one by --ckpt_path, such as "
                "best.ckpt beside it."
            ) from error
