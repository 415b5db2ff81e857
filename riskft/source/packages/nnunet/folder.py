"""nnU-Net v2 trained-model folders."""

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from riskft.errors import InputError
from riskft.source.packages.base import Package
from riskft.source.packages.nnunet import plans as plan

log = logging.getLogger(__name__)

_FILES = ("plans.json", "dataset.json")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")
_T = TypeVar("_T")


def find(path: Path) -> Package | None:
    """Returns the description of a model that nnU-Net v2 trained, or None if the path is something else.

    The path is the folder ``<trainer>__<plans>__<configuration>``, a ``fold_*`` folder in it, or a checkpoint in a
    fold. The default fold is the lowest (``fold_all`` if there is no other), the default checkpoint the final one, then
    the best, then the latest. Raises InputError if a part is missing, or riskft cannot use the model (2-D, second stage
    of a cascade).
    """
    located = _locate(Path(os.path.abspath(path)))  # the folders' names count, and "." and ".." hide them
    if located is None:
        return None
    folder, weights = located
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise InputError(
            f"{folder}: {' and '.join(missing)} missing, which nnU-Net writes next to the folds. Copy them from there."
        )
    in_channels = _from(folder / "dataset.json", plan.input_channels)
    names, regions = _from(folder / "dataset.json", plan.output_channels)
    return _from(folder / "plans.json", lambda plans: _package(plans, weights, in_channels, names, regions))


def _package(plans: plan.Json, weights: Path, in_channels: int, names: tuple[str, ...], regions: bool) -> Package:
    chosen = plan.configuration(plans, _configuration_name(plans, weights))
    axes = plan.kernel_axes(plans)
    class_name, options = plan.architecture(chosen, axes)
    network = {"network_class_name": class_name, "arch_kwargs": options, "in_channels": in_channels}
    network |= {"num_classes": len(names), "deep_supervision": True}
    source = {
        "network": {"class_path": "riskft.nnunet_network", "init_args": network},
        "output": {"class_path": "riskft.SigmoidOutput" if regions else "riskft.SoftmaxOutput"},
    }
    preprocessing = {
        "spacing": plan.along_xyz(plan.entry(chosen, "spacing"), axes),
        "orientation": plan.orientation(plans),
        "crop": True,
        "margin": 0,
        "intensity": plan.intensity(plans, chosen),
    }
    data = {"patch_size": plan.along_xyz(chosen["patch_size"], axes), "preprocessing": preprocessing}
    return Package(weights, {"model": {"source": source}, "data": data}, names, in_channels, axes)


def _configuration_name(plans: plan.Json, weights: Path) -> str:
    """Returns the configuration in the folder's name, else in nnU-Net's debug.json, else the only usable one.

    The checkpoint states it too, but only in pickled objects that are not tensors.
    """
    known = plan.entry(plans, "configurations")
    name = weights.parent.parent.name.rpartition("__")[2]
    notes = weights.parent / "debug.json"
    if name not in known and notes.is_file():
        name = str(_read(notes).get("configuration_name"))
    if name not in known:
        fit = [other for other in known if plan.usable(plan.configuration(plans, other)) is None]
        if len(fit) != 1:
            raise InputError(
                f"It has the configurations {', '.join(known)}, and the folder's name does not say which one was "
                "trained. Give the folder its name back: <trainer>__<plans>__<configuration>."
            )
        name = fit[0]
    if (problem := plan.usable(plan.configuration(plans, name))) is not None:
        raise InputError(f"The configuration '{name}' {problem}. Use a model of another one.")
    return name


def _locate(path: Path) -> tuple[Path, Path] | None:
    """Returns the model's folder and its checkpoint, or None if the path is something else."""
    if path.is_file():
        fold = path.parent
        return (fold.parent, path) if path.suffix == ".pth" and _is_fold(fold) and _described(fold.parent) else None
    folder = path.parent if _is_fold(path) else path
    folds = [path] if _is_fold(path) else sorted(filter(_is_fold, path.glob("fold_*")), key=_fold_number)
    weights = [file for fold in folds for name in _CHECKPOINTS if (file := fold / name).is_file()]
    if weights:
        log.info("%s: taking %s", path, weights[0].relative_to(folder))
        return folder, weights[0]
    if (folds and _described(folder)) or all((path / name).is_file() for name in _FILES):
        raise InputError(
            f"{path}: has no trained fold: expected {' or '.join(_CHECKPOINTS)} in a fold_* folder. Copy one there."
        )
    if models := sorted(one.parent.name for one in path.glob("*__*__*/plans.json")):
        raise InputError(f"{path}: holds {len(models)} trained models of nnU-Net. Name one of them:", models)
    return None


def _described(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _FILES)


def _is_fold(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"fold_(\d+|all)", path.name) is not None


def _fold_number(fold: Path) -> float:
    number = fold.name.removeprefix("fold_")
    return float("inf") if number == "all" else int(number)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}). Copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected an object. Copy it again.")
    return content


def _from(path: Path, make: Callable[[dict[str, Any]], _T]) -> _T:
    """Returns ``make`` of a JSON file's content, and names the file in its errors."""
    content = _read(path)
    try:
        return make(content)
    except InputError as error:
        raise InputError(f"{path}: {error.title}", error.problems) from error
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{path}: has another form than nnU-Net v2 writes ({error!r}). Copy it again.") from error
