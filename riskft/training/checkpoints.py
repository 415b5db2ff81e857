"""Which checkpoints a run keeps: the best, and the latest to go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from riskft.errors import InputError
from riskft.run.folder import RunFolder
from riskft.training.data_of import data_of


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt`` by ``val/dice``; nothing where there are no validation cases.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            dirpath=path.parent, filename=path.stem, monitor="val/dice", mode="max", enable_version_counter=False
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stops monitoring where nothing is validated."""
        data = data_of(trainer)
        if stage == "fit" and data is not None and not data.prepared("val"):
            self.monitor = None
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over the best scores of a run that was moved, for all checkpoint callbacks of the trainer.

        Lightning ties them to the absolute path of the folder: in another it forgets them, and the next validation,
        however bad, overwrites the best checkpoint. In the same folder it keeps them even if their files are gone, and
        a run that does not get better would end without any.
        """
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and isinstance(state, dict) and callback.dirpath is not None:
                states[callback.state_key] = moved_state(state, Path(callback.dirpath))


class LatestCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, written after each epoch.

    A class of its own, because checkpoints keep the states of callbacks by class and options, and Lightning refuses a
    ``ModelCheckpoint`` that a user adds if there is one of the same options.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            dirpath=path.parent, filename=path.stem, save_on_train_epoch_end=True, enable_version_counter=False
        )


def moved_state(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the state of a ``ModelCheckpoint`` whose folder was moved or copied, or whose files were removed.

    Anything else stays as it is.

    Args:
        state: What ``ModelCheckpoint.state_dict`` gave.
        folder: Where its files are now. If the best of them are not there, the folder is another one, and the state
            stays tied to the one before.
    """
    before = state.get("dirpath")
    if before is not None and Path(before) == folder:
        kept = {path: score for path, score in state.get("best_k_models", {}).items() if Path(path).is_file()}
        return {**state, "best_k_models": kept}  # from which Lightning finds the others at the next validation
    if before is None:
        return dict(state)

    def here(path: str) -> str:
        inside = Path(path).is_relative_to(before) and Path(path) != Path(before)
        return str(folder / Path(path).relative_to(before)) if inside else path

    best = {here(path): score for path, score in state.get("best_k_models", {}).items()}
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    paths = {name: here(state[name]) for name in names if state.get(name)}
    if not all(Path(path).is_file() for path in (*best, *paths.values())):
        return dict(state)
    return {**state, **paths, "best_k_models": best, "dirpath": str(folder)}


def run_checkpoints(run: RunFolder) -> list[Callback]:
    """Returns the callbacks that keep ``best.ckpt`` and, after each epoch, ``last.ckpt``.

    Two callbacks, because ``ModelCheckpoint(save_last=True)`` writes the latter only along with a new best, and a
    resumed run would fall back to that.
    """
    return [BestCheckpoint(run.best), LatestCheckpoint(run.last)]


def find_checkpoint(run: RunFolder, path: str | None = None) -> Path:
    """Returns the checkpoint to use.

    Args:
        run: The run folder.
        path: ``best``, ``last`` or a file; None for the best, or the last where nothing was validated.

    Raises:
        InputError: If there is none.
    """
    # Lightning looks for "best" and "last" only in the process that trained, and goes on without if it finds none
    named = {"best": [run.best], "last": [run.last], None: [run.best, run.last]}
    candidates = named[path] if path in named else [Path(str(path))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " nor ".join(str(candidate) for candidate in candidates)
    raise InputError(f"There is no checkpoint {tried}. Run fit first, or give another --ckpt_path.")
