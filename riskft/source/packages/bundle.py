"""MONAI bundle folders."""

import pkgutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.packages.base import Package
from riskft.source.packages.bundle_config import Config, NotPlainError, read_config, resolve
from riskft.source.packages.bundle_data import data_defaults, is_sigmoid

_NETWORK_KEYS = ("network_def", "network", "net")
_CONFIG_FILES = tuple(f"{name}.{ending}" for name in ("inference", "train") for ending in ("json", "yaml", "yml"))
# safetensors first: riskft convert writes it beside a pickled file
_WEIGHTS = ("model.safetensors", "model.pt", "model.ckpt", "model.pth")
_NOTES = ("_desc_", "_requires_")
_NO_ARGUMENTS = ("_target_", *_NOTES, "_disabled_", "_mode_")


def find(path: Path) -> Package | None:
    """Returns the description of the model in a MONAI bundle's folder, or None if the path is something else.

    It has ``configs/inference.json`` (or train, or YAML) and ``models/model.pt``. Only literal values and references
    are used; expressions (``$...``) are Python code and are not evaluated. Raises InputError if the network is not
    described in plain values or not 3-D, or the weights are missing.
    """
    files = [file for name in _CONFIG_FILES if (file := path / "configs" / name).is_file()]
    if not files:
        return None
    configs = [read_config(file) for file in files]
    weights = _weights(path)
    network = _network(path, files, configs, weights)
    options = network["init_args"]
    dimensions = options.get("spatial_dims", options.get("dimensions", 3))
    if dimensions != 3:
        raise InputError(f"{path}: its network is {dimensions}-D, expected a 3-D one.")
    names, channels = _data_format(path)
    channels = options["in_channels"] if isinstance(options.get("in_channels"), int) else channels
    outputs = options.get("out_channels", options.get("num_classes"))
    if names is not None and isinstance(outputs, int) and outputs != len(names):
        names = None  # the metadata is wrong; the network is what was trained
    output = "riskft.SigmoidOutput" if any(is_sigmoid(config) for config in configs) else "riskft.SoftmaxOutput"
    config: dict[str, Any] = {"model": {"source": {"network": network, "output": {"class_path": output}}}}
    if data := data_defaults(configs[0], channels):
        config["data"] = data
    return Package(weights, config, names, channels)


def _weights(folder: Path) -> Path:
    models = folder / "models"
    if (known := next((models / name for name in _WEIGHTS if (models / name).is_file()), None)) is not None:
        return known
    found = sorted(file.name for file in models.iterdir()) if models.is_dir() else []
    raise InputError(
        f"{models}: found {', '.join(found) or 'nothing'}, expected the bundle's weights as one of "
        f"{', '.join(_WEIGHTS)}."
    )


def _network(folder: Path, files: list[Path], configs: list[dict[str, Any]], weights: Path) -> dict[str, Any]:
    """Returns the network's class_path and init_args from the first config that gives them in plain values."""
    problems = []
    for file, config in zip(files, configs, strict=True):
        for key in _NETWORK_KEYS:
            if key in config:
                try:
                    described = config[key]
                    if isinstance(described, Mapping):  # without notes, which are often expressions
                        described = {name: described[name] for name in described if name not in _NOTES}
                    return _class_and_options(resolve(config, described, key), key, folder)
                except NotPlainError as error:
                    problems.append(f"{file.name}: {error}")
    raise InputError(
        f"{folder}: does not describe its network in plain values. Give model.source.network by class_path, and "
        f"{weights} as model.source.checkpoint.",
        problems[:2] or [f"none of {', '.join(_NETWORK_KEYS)} in {', '.join(file.name for file in files)}"],
    )


def _class_and_options(described: Any, key: str, folder: Path) -> dict[str, Any]:
    if not isinstance(described, Mapping) or not isinstance(described.get("_target_"), str):
        raise NotPlainError(key, "has no '_target_', expected the network's class and options")
    if described.get("_disabled_", False) is not False or described.get("_mode_", "default") != "default":
        raise NotPlainError(key, "is disabled or not built in the default mode")
    options = {name: value for name, value in described.items() if name not in _NO_ARGUMENTS}
    if _has_component(options):
        raise NotPlainError(key, "has objects among its options")
    return {"class_path": _network_class(described["_target_"], key, folder), "init_args": options}


def _has_component(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_component, value.values()))
    return isinstance(value, list) and any(map(_has_component, value))


def _network_class(target: str, key: str, folder: Path) -> str:
    """Returns the full name of a network class; refuses anything else and calls nothing."""
    if "." not in target:
        name, found = f"monai.networks.nets.{target}", getattr(nets, target, None)
    else:
        if _is_inside(target.partition(".")[0], folder):
            raise NotPlainError(key, f"is '{target}' of the bundle's own Python files, which riskft does not run")
        try:
            name, found = target, pkgutil.resolve_name(target)
        except Exception as error:  # importing a module may raise anything
            raise NotPlainError(key, f"is '{target}', which is not installed ({type(error).__name__})") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise NotPlainError(key, f"is '{target}', expected a subclass of torch.nn.Module")
    return name


def _is_inside(package: str, folder: Path) -> bool:
    """Returns whether Python would import a top-level package from the folder or its parents; imports nothing."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False  # its import will fail as well
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.has_location and spec.origin else [])]
    own = folder.resolve()
    return any(
        own in (place := Path(location).resolve()).parents or place in (own, *own.parents) for location in places
    )


def _data_format(folder: Path) -> tuple[tuple[str, ...] | None, int | None]:
    """Returns the class names and number of channels in ``metadata.json``, None for what is absent."""
    file = folder / "configs" / "metadata.json"
    described: Config = read_config(file).get("network_data_format") or {} if file.is_file() else {}
    image, pred = (_only(described, side, usual) for side, usual in (("inputs", "image"), ("outputs", "pred")))
    channels, definition = image.get("num_channels"), pred.get("channel_def")
    names = None
    if isinstance(definition, Mapping) and set(definition) == {str(index) for index in range(len(definition))}:
        names = tuple(str(definition[str(index)]) for index in range(len(definition)))
        names = names if names and len(set(names)) == len(names) else None
    return names, channels if isinstance(channels, int) else None


def _only(described: Config, side: str, usual: str) -> Config:
    entries = described.get(side) if isinstance(described, Mapping) else None
    if not isinstance(entries, Mapping):
        return {}
    entry = entries.get(usual, next(iter(entries.values()), None) if len(entries) == 1 else None)
    return entry if isinstance(entry, Mapping) else {}
