"""Checking that a checkpoint fits a command, before any other work."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError, refuse
from riskft.run.folder import RunFolder
from riskft.run.record import Record, read_record
from riskft.training.checkpoint_io import WholeCheckpointIO
from riskft.training.module import RiskModule
from riskft.training.record.compare import (
    SPLIT_NAMES,
    TrainerCommand,
    leaked,
    misfit_line,
    order_of,
    resume_lines,
    some,
    source_lines,
    use_lines,
)
from riskft.training.record_of import record_of

log = logging.getLogger(__name__)
_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
_DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError)  #: Errors that a damaged record can cause.


def check_checkpoint(
    path: Path, module: LightningModule, data: LightningDataModule | None, command: TrainerCommand
) -> None:
    """Rejects a checkpoint that contradicts the command, and adopts its order of the classes.

    Raises InputError, with all contradictions, also if the file is not a training checkpoint.
    """
    content = WholeCheckpointIO().load_checkpoint(path, map_location="cpu", weights_only=True)
    _check_kind(path, content, command)
    if isinstance(module, RiskModule):
        check_content(path, content, module, data if isinstance(data, RiskDataModule) else None, command)


def check_content(
    path: Path, content: Mapping[str, Any], module: RiskModule, data: RiskDataModule | None, command: TrainerCommand
) -> None:
    """Does the work of ``check_checkpoint`` for a checkpoint that is already loaded."""
    then = read_record(content.get("riskft"))
    errors: list[str] = []
    if then is None:
        log.warning("%s does not say what it was made with, so riskft cannot compare that with this command.", path)
    else:
        try:
            errors = _contradictions(path, then, module, data, command)
        except InputError:
            raise
        except _DAMAGED as error:
            log.warning("%s: its record of what it was made with is damaged (%s) and is not compared.", path, error)
    if not errors and (misfit := _misfit(module, content["state_dict"])) is not None:
        errors = [misfit]
    advice = (
        "Resume it with the checkpoint's options. To train with this command's options, start again: leave out "
        "--ckpt_path, and add --run.overwrite true or choose another --run.method or --run.folder."
        if command == "fit"
        else "Use those of the checkpoint (the config.yaml in its run folder has them), or train another run with "
        "`riskft fit`."
    )
    refuse(f"{path} was trained with other options than this command gives. {advice}", errors)


def check_filing(folder: RunFolder, path: Path) -> None:
    """Prevents one run's scores from being saved in another's folder, where `riskft compare` would read them.

    Raises InputError if the folder belongs to a run with another method or seed than the tested checkpoint.
    """
    own = folder.read_record()
    if own is None or path.resolve().parent == folder.checkpoints.resolve():
        return
    other = recorded_in(path)
    if other is None or own.name == other.name or not (own.options and other.options):
        return
    raise InputError(
        f"{path} is of method {other.name[0]}, seed {other.name[1]}, and its scores would be kept in {folder.path} as "
        f"those of method {own.name[0]}, seed {own.name[1]}. Choose another --run.method or --run.folder for them."
    )


def recorded_in(path: Path) -> Record | None:
    """Returns the record that a checkpoint holds, if any."""
    return read_record(WholeCheckpointIO().load_checkpoint(path, map_location="cpu", weights_only=True).get("riskft"))


def check_source(then: Record, module: RiskModule, data: RiskDataModule) -> None:
    """Warns if riskft trained the source with other options, or on cases of the target."""
    cases = data.cases()
    train, test = ([case.owner for case in cases[split]] for split in ("train", "test"))
    try:
        lines = source_lines(then, record_of(module, data, ()), train, test)
    except InputError:
        raise
    except _DAMAGED as error:
        lines = [f"its record of what it was made with is damaged ({error}) and is not compared"]
    if lines:
        log.warning("The source %s differs from the target:\n%s", module.source.checkpoint, _listed(lines))


def _contradictions(
    path: Path, then: Record, module: RiskModule, data: RiskDataModule | None, command: TrainerCommand
) -> list[str]:
    now = record_of(module, data, ())
    if data is not None and (order := order_of(then, now)) is not None:
        log.warning("The classes keep the order that %s has: %s.", path, ", ".join(order))
        data.order_classes(order)
        module.class_names, module.regions = data.class_names, data.regions
        now = record_of(module, data, ())
    if command == "fit":
        return resume_lines(then, now if data is None else record_of(module, data))
    cases = {} if data is None else data.cases()
    subjects = [case.subject for split in cases.values() for case in split]
    errors, warnings = use_lines(then, now, command, subjects)
    if warnings:
        log.warning("%s was trained on another data set. Check that these mean the same:\n%s", path, _listed(warnings))
    if data is not None and not errors and command != "predict":
        errors += _leak_lines(path, then, data, "val" if command == "validate" else "test")
    return errors


def _leak_lines(path: Path, then: Record, data: RiskDataModule, split: str) -> list[str]:
    """Returns errors for test cases that were training cases; warns if only names match, or in validation."""
    same, named = leaked(then, data.case_keys(split))
    if same and split == "test":
        return [f"data.split: these test cases were training cases of the checkpoint: {some(same)}"]
    if same or named:
        log.warning(
            "These %s cases have the name of, or are of the same person as, training cases of %s, so their scores may "
            "be too good: %s",
            SPLIT_NAMES[split],
            path,
            some(sorted([*same, *named])),
        )
    return []


def _check_kind(path: Path, content: Mapping[str, Any], command: TrainerCommand) -> None:
    """Rejects a checkpoint without a training state if the command resumes."""
    if command == "fit" and (missing := [name for name in _TRAINING if name not in content]):
        raise InputError(
            f"{path} holds weights but not the state of the training ({', '.join(missing)}), so the training cannot be "
            "resumed from it. To start from its weights, give it as --model.source.checkpoint instead of --ckpt_path."
        )


def _misfit(module: RiskModule, state: Mapping[str, Any]) -> str | None:
    prefix = "network."
    own, found = (
        {key: tuple(value.shape) for key, value in part.items() if key.startswith(prefix) and hasattr(value, "shape")}
        for part in (module.state_dict(), state)
    )
    return misfit_line(own, found)


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"  - {each}" for each in lines)
