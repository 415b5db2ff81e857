"""The checkpoints of a run: the best one and the latest one, written atomically; and what is read from them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from riskft.compat import BUILT_BY
from riskft.errors import InputError, first_few
from riskft.run.folder import RunFolder
from riskft.training.of_trainer import data_of


@contextmanager
def misfits_named() -> Iterator[None]:
    """Turns torch's error about weights that do not fit into an InputError with its first lines."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            "The checkpoint does not fit this command's network and loss. Give the options that it was trained "
            "with (config.yaml in its run folder), or another --ckpt_path:",
            first_few(line.strip() for line in str(error).splitlines()[1:]),
        ) from error


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the hyperparameters that are plain values, or all of a module that the command line built."""
    if BUILT_BY in options:
        return dict(options)
    return {key: value for key, value in options.items() if isinstance(value, str | int | float | bool | None)}


def with_own(prefix: str, loaded: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a loaded state in which the module's own entries replace those that start with the prefix."""
    kept = {key: value for key, value in loaded.items() if not key.startswith(prefix)}
    return {**kept, **{key: value for key, value in own.items() if key.startswith(prefix)}}


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, at ``path``, by ``val/dice``; keeps nothing if there are no validation cases."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            dirpath=path.parent, filename=path.stem, monitor="val/dice", mode="max", enable_version_counter=False
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Turns monitoring off if there are no validation cases."""
        data = data_of(trainer)
        if stage == "fit" and data is not None and not data.prepared("val"):
            self.monitor = None
            self.save_top_k = 0
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Corrects the saved best scores of all checkpoint callbacks if the run was moved or lost files.

        Lightning ties the scores to the folder's absolute path. In another folder it discards them, and the next
        validation overwrites the best checkpoint, however bad its score. In the same folder it keeps the scores of
        deleted files, and a run that does not improve ends without a best checkpoint.
        """
        states = checkpoint.get("callbacks", {})
        for callback in trainer.checkpoint_callbacks:
            state = states.get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and isinstance(state, dict) and callback.dirpath is not None:
                states[callback.state_key] = moved_state(state, Path(callback.dirpath))


class LatestCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt``, at ``path``, after each epoch.

    Checkpoints key callback states by class and options, and Lightning rejects two callbacks with the same key. As a
    separate class, this one cannot clash with a ``ModelCheckpoint`` that a user adds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            dirpath=path.parent, filename=path.stem, save_on_train_epoch_end=True, enable_version_counter=False
        )


def moved_state(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Corrects the state of a ``ModelCheckpoint`` whose folder was moved or copied, or whose files were deleted.

    If any file is missing in the new folder, the state is returned unchanged.
    """
    before = state.get("dirpath")
    if before is not None and Path(before) == folder:
        kept = {path: score for path, score in state.get("best_k_models", {}).items() if Path(path).is_file()}
        return {**state, "best_k_models": kept}  # Lightning derives the rest at the next validation
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
    """Returns the callbacks that keep ``best.ckpt`` and ``last.ckpt``.

    One callback with ``save_last=True`` is not enough: it writes ``last.ckpt`` only with a new best checkpoint, so a
    resumed run would lose the epochs since then.
    """
    return [BestCheckpoint(run.best), LatestCheckpoint(run.last)]


def find_checkpoint(run: RunFolder, path: str | None = None) -> Path:
    """Returns the file ``best``, ``last`` or another one; None for the best, or the last if there is no best.

    Raises InputError if the file does not exist.
    """
    # Lightning resolves "best" and "last" only in the process that trained, and ignores a missing checkpoint
    named = {"best": [run.best], "last": [run.last], None: [run.best, run.last]}
    candidates = named[path] if path in named else [Path(str(path))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    tried = " nor ".join(str(candidate) for candidate in candidates)
    raise InputError(f"There is no checkpoint {tried}. Run fit first, or give another --ckpt_path.")
