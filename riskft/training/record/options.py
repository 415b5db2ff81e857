"""The options that a run's weights depend on, and how two configs differ."""

import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from lightning.pytorch.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
    Timer,
)

from riskft.training.finite import FiniteLossGuard
from riskft.training.panels import RiskPanelCallback
from riskft.training.pause import PauseAt

#: Options that a resumed run may change: the weights do not depend on them, except by the order of summation.
FREE = {
    "data": ("cache_dir", "num_workers", "queue_length", "check_files"),
    "model": ("inferer", "channels_last", "compile", "validation_surface"),
    "model.source": ("checkpoint", "inferer", "min_loaded"),
}
#: Options that the record holds under names of its own.
RECORDED = {
    "data": ("class_names", "labels", "modalities", "preprocessing", "patch_size"),
    "model": ("class_names", "in_channels", "regions"),
}
#: Options that are compared by the cases that they select.
CASES = ("reader", "split", "train_limit", "train_limit_seed")
#: The only trainer options that the weights depend on.
TRAINER = (
    "gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches", "limit_train_batches", "overfit_batches",
)  # fmt: skip
#: Callbacks that do not affect the weights.
ONLOOKERS = (
    Checkpoint, DeviceStatsMonitor, EarlyStopping, FiniteLossGuard, LearningRateMonitor, ModelSummary, PauseAt,
    ProgressBar, RiskPanelCallback, Timer,
)  # fmt: skip
#: Not compared: the numbers of channels and classes follow from the data, and a store is only a folder.
UNUSED = ("in_channels", "out_channels", "store")

Difference = tuple[str, Any, Any]


def trained_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a command's config that the weights depend on; ``config`` is all of it, as plain values."""
    trainer = config.get("trainer") or {}
    options: dict[str, Any] = {
        "seed_everything": config.get("seed_everything"),
        "run": {"method": (config.get("run") or {}).get("method")},
        "trainer": {name: trainer.get(name) for name in TRAINER},
    }
    options["trainer"]["callbacks"] = _callbacks(trainer.get("callbacks"))
    for part in ("data", "model"):
        left_out = (*FREE[part], *RECORDED[part])
        options[part] = {name: value for name, value in (config.get(part) or {}).items() if name not in left_out}
    source = options["model"].get("source") or {}
    options["model"]["source"] = {name: value for name, value in source.items() if name not in FREE["model.source"]}
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def differences(then: Any, now: Any, option: str = "") -> list[Difference]:
    """Returns (option, value then, value now) for each of an option's nested options that differs."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return [(option, then, now)] if then != now else []
    if then.get("class_path") != now.get("class_path"):
        return [(option, then, now)]
    found: list[Difference] = []
    for name in dict.fromkeys([*then, *now]):
        if name not in UNUSED:
            found += differences(then.get(name), now.get(name), f"{option}.{name}" if option else name)
    return found


def line(option: str, then: Any, now: Any) -> str:
    """Returns a difference as one line of a report."""
    return f"{option}: {shown(then)} in the checkpoint, {shown(now)} in this command"


def shown(value: Any, length: int = 120) -> str:
    """Returns a value as one shortened line of YAML; an object without options as its class only."""
    if isinstance(value, Mapping) and "class_path" in value and not value.get("init_args"):
        value = value["class_path"]
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
    text = text.removesuffix("...").strip()
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def _callbacks(callbacks: Any) -> dict[str, Any]:
    """Returns the options of the callbacks that affect the weights, by class."""
    listed = callbacks if isinstance(callbacks, Sequence) else [callbacks] if callbacks else []
    return dict(_named(one for one in listed if isinstance(one, Mapping) and not _only_looks_on(one["class_path"])))


def _named(callbacks: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for one in callbacks:
        name = one["class_path"]
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})", one.get("init_args") or {}


def _only_looks_on(class_path: str) -> bool:
    try:
        return issubclass(pkgutil.resolve_name(class_path), ONLOOKERS)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
