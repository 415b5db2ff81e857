"""Which checkpoints a run keeps: the best, and the latest to go on from."""

import warnings
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` by ``val/dice``; nothing where there are no validation cases.

    Args:
        folder: Where the file goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(dirpath=folder, filename="best", monitor="val/dice", mode="max", enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops monitoring where nothing is validated."""
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, RiskDataModule) and not data.prepared("val"):
            self.monitor = None
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)


class LatestCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, written after each epoch.

    A class of its own, because checkpoints keep the states of callbacks by class and options, and Lightning refuses a
    ``ModelCheckpoint`` that a user adds if there is one of the same options.

    Args:
        folder: Where the file goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(dirpath=folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


def run_checkpoints(folder: str) -> list[Callback]:
    """Returns the callbacks that keep ``best.ckpt`` and, after each epoch, ``last.ckpt``.

    Two callbacks, because ``ModelCheckpoint(save_last=True)`` writes the latter only along with a new best, and a
    resumed run would fall back to that.
    """
    # a resumed run finds its own files in the folder
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    return [BestCheckpoint(folder), LatestCheckpoint(folder)]


def find_checkpoint(run: Path, path: str | None = None) -> Path:
    """Returns the checkpoint to use.

    Args:
        run: The run folder.
        path: ``best``, ``last`` or a file; None for the best, or the last where nothing was validated.

    Raises:
        InputError: If there is none.
    """
    folder = run / "checkpoints"
    # Lightning looks for "best" and "last" only in the process that trained, and goes on without if it finds none
    names = {"best": ("best.ckpt",), "last": ("last.ckpt",), None: ("best.ckpt", "last.ckpt")}.get(path)
    candidates = [Path(str(path))] if names is None else [folder / name for name in names]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " nor ".join(str(candidate) for candidate in candidates)
    raise InputError(f"There is no checkpoint {tried}. Run fit first, or give another --ckpt_path.")
