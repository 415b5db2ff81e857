"""The options of every command, found by asking its parser, so that the fuzz knows new ones by itself."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import jsonargparse

import riskft
from riskft.build import Command
from riskft.cli import main

#: Classes of other libraries that are tried where options take a class.
FOREIGN = (
    *("torch.nn.Linear", "torch.nn.Conv3d", "torch.nn.Identity", "torch.optim.SGD", "torch.optim.Adam"),
    *("torch.optim.LBFGS", "torch.optim.lr_scheduler.StepLR", "torch.optim.lr_scheduler.OneCycleLR"),
    *("torch.optim.lr_scheduler.CosineAnnealingLR", "torch.optim.lr_scheduler.ReduceLROnPlateau"),
    *("monai.networks.nets.SegResNet", "monai.networks.nets.BasicUNet", "monai.networks.nets.UNETR"),
    *("monai.networks.nets.UNet", "monai.networks.nets.VNet", "monai.networks.nets.DenseNet121"),
    *("monai.inferers.SimpleInferer", "monai.inferers.SlidingWindowInferer", "monai.inferers.SliceInferer"),
    *("torchio.RandomNoise", "torchio.RandomAffine", "torchio.RandomFlip", "torchio.Crop", "torchio.OneOf"),
    *("lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.ModelCheckpoint"),
    *("lightning.pytorch.callbacks.LearningRateMonitor", "lightning.pytorch.callbacks.WeightAveraging"),
    *("lightning.pytorch.callbacks.Timer", "lightning.pytorch.loggers.CSVLogger", "collections.OrderedDict"),
    *("lightning.pytorch.profilers.SimpleProfiler", "pathlib.Path", "os.system", "nowhere.Nothing", "riskft.Nothing"),
)


def lightning_options(command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns every option of a Lightning command with its value, ``init_args`` of the classes in use among them."""
    config = Command([command, *arguments]).options
    return dict(_flat(config.as_dict(), ""))


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        yield prefix + name, value


def other_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Returns every option of a command without a config, with its default."""

    class Found(BaseException):
        pass

    def found(self: jsonargparse.ArgumentParser, args: Any = None, **kwargs: Any) -> None:
        raise Found(self)

    with mock.patch.object(jsonargparse.ArgumentParser, "parse_args", found), contextlib.suppress(SystemExit):
        try:
            main(arguments)
        except Found as error:
            (parser,) = error.args
            return {name: action.default for action in _actions(parser) for name in _long(action)}
    raise AssertionError(f"no parser for {arguments}")


def _actions(parser: Any) -> Iterator[Any]:
    for action in parser._actions:
        if isinstance(action.choices, dict):  # subcommands
            for one in action.choices.values():
                yield from _actions(one)
        else:
            yield action


def _long(action: Any) -> list[str]:
    return [name.removeprefix("--") for name in action.option_strings if name.startswith("--") and name != "--help"]


def classes() -> dict[str, type]:
    """Returns the classes of riskft's public API by their class path."""
    found = {f"riskft.{name}": getattr(riskft, name) for name in riskft.__all__}
    return {path: value for path, value in found.items() if inspect.isclass(value)}


def siblings(path: str) -> list[str]:
    """Returns the class paths that share a base with a class of riskft."""
    known = classes()
    if (one := known.get(path)) is None:
        return []
    bases = {base for base in one.__mro__ if base.__module__.startswith("riskft")}
    return [name for name, other in known.items() if bases & set(other.__mro__)]


def parameters(path: str) -> list[str]:
    """Returns the names of a class's arguments, as far as it is known."""
    module, _, name = path.rpartition(".")
    try:
        target = getattr(__import__(module, fromlist=[name]), name)
        return [key for key in inspect.signature(target).parameters if key not in ("self", "args", "kwargs")]
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
