"""A network's features at chosen voxels of a volume, at three depths, without keeping whole feature volumes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from riskft.source.parametrizations import copied
from riskft.source.resize import LAYERS, in_channels
from riskft.source.trace import trace

ENCODER, BOTTLENECK, DECODER = ("encoder", "bottleneck", "decoder")


@dataclass(frozen=True)
class Place:
    """Where features are taken in a forward pass."""

    module: str  #: Name of the module that gives them or takes them.
    of_input: bool = False  #: Whether they are the module's input, not its output.
    call: int = 0  #: In which of the module's runs, from 0: a module may run several times in one pass.
    #: Names of the parameters and buffers of the modules that have started before.
    needs: frozenset[str] = frozenset()


@dataclass
class _Pass:
    """What one forward pass shows: each output of a module, and where the next layer starts."""

    places: list[Place] = field(default_factory=list)
    voxels: list[int] = field(default_factory=list)  #: Of each output.
    #: The outputs that a layer takes, or that are the last before another resolution.
    ends: dict[int, None] = field(default_factory=dict)
    entry: Place | None = None  #: The input of the head.


@torch.inference_mode(False)
def find_depths(network: nn.Module, head: Sequence[str], size: Sequence[int]) -> dict[str, Place]:
    """Returns where a network's features are taken, by depth; each depth that there is.

    ``bottleneck`` is the last output at the lowest resolution, ``encoder`` the last one half way down to it, counted in
    resolutions, and ``decoder`` the input of the head. If nothing shrinks, they are half way and a quarter of the way
    through the network. Only the outputs that go into a layer count, which come after normalisation and activation. A
    single voxel is not a resolution: that is how global pooling describes the whole window.

    Args:
        network: A segmentation network that ``trace`` can trace.
        head: The head's modules, in order of execution, as ``with_classes`` returns them.
        size: A window that it can run on, voxels along x, y, z.

    Raises:
        InputError: If the network does not run.
    """
    found = trace(network, size, training=False)
    # heads of several resolutions (deep supervision) lie beside each other, and the segmentation's is not the first;
    # in a head of several layers, the last takes the classes' channels
    own = [name for name in found.last[:1] if in_channels(network.get_submodule(name)) != found.channels[0]]
    entry = own[0] if own and own[0] in head else head[0]
    seen = _seen(network, found.in_channels, size, entry)
    places = dict(zip((ENCODER, BOTTLENECK), _on_the_way_down(seen), strict=False))
    return places | ({DECODER: seen.entry} if seen.entry is not None else {})


@torch.inference_mode(False)
def encoder_keys(network: nn.Module, size: Sequence[int]) -> frozenset[str]:
    """Returns the names of the parameters and buffers that run up to the bottleneck; none if nothing shrinks."""
    seen = _seen(network, trace(network, size, training=False).in_channels, size)
    # the features of a small U-Net may all have the same resolution, below the image's
    if min((seen.voxels[index] for index in seen.ends), default=prod(size)) >= prod(size):
        return frozenset()
    return _on_the_way_down(seen)[1].needs


def _seen(network: nn.Module, channels: int, size: Sequence[int], entry: str = "") -> _Pass:
    """Returns what a forward pass shows; ``entry`` is the module whose input is the head's."""
    try:
        # the meta device takes almost no time or memory, whatever the window
        return _observed(copied(network).to("meta"), channels, size, entry)
    except (RuntimeError, NotImplementedError):  # it reads values
        return _observed(copied(network), channels, size, entry)


def _on_the_way_down(seen: _Pass) -> list[Place]:
    """Returns the places of the encoder and the bottleneck; none if no layer takes another's output."""
    ends = list(seen.ends)
    if not ends:
        return []
    voxels = [seen.voxels[index] for index in ends]
    lowest = min(voxels)
    if lowest == max(voxels):
        return [seen.places[ends[len(ends) // part]] for part in (4, 2)]
    first, last = voxels.index(lowest), len(voxels) - 1 - voxels[::-1].index(lowest)
    levels = sorted({*voxels[:first], lowest}, reverse=True)
    middle = levels[(len(levels) - 1) // 2]
    half_way = [index for index in range(first) if voxels[index] == middle]
    return [seen.places[ends[half_way[-1] if half_way else (first + last) // 2]], seen.places[ends[last]]]


def _observed(network: nn.Module, channels: int, size: Sequence[int], entry: str) -> _Pass:
    """Runs a network on zeros in evaluation mode, and returns what its modules give in order."""
    seen, kind = _Pass(), next(network.parameters())
    started: dict[str, None] = {}
    calls: dict[str, int] = {}

    def starts(name: str, module: nn.Module) -> Any:
        own = [*module.named_parameters(name, recurse=False), *module.named_buffers(name, recurse=False)]

        def hook(*_: Any) -> None:
            if isinstance(module, LAYERS) and seen.places:
                seen.ends[len(seen.places) - 1] = None
            if name == entry:
                seen.entry = Place(name, True, calls.get(name, 0), frozenset(started))
            started.update(dict.fromkeys(key for key, _ in own))

        return hook

    def ends(name: str) -> Any:
        def hook(_: nn.Module, __: Any, result: Any) -> None:
            call = calls.get(name, 0)
            calls[name] = call + 1
            if isinstance(result, Tensor) and result.ndim == 5 and prod(result.shape[2:]) > 1:
                if seen.voxels and seen.voxels[-1] != prod(result.shape[2:]):
                    seen.ends[len(seen.places) - 1] = None
                seen.places.append(Place(name, False, call, frozenset(started)))
                seen.voxels.append(prod(result.shape[2:]))

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.eval().named_modules():
            hooks.callback(module.register_forward_pre_hook(starts(name, module)).remove)
            if name:
                hooks.callback(module.register_forward_hook(ends(name)).remove)
        network(torch.zeros((1, channels, *size), device=kind.device, dtype=kind.dtype))
    return seen


def with_coordinates(image: Tensor) -> Tensor:
    """Returns an image (1, C, X, Y, Z) float32 with each voxel's x, y, z as further channels, for ``features_at``."""
    axes = [torch.arange(edge, dtype=torch.float32, device=image.device) for edge in image.shape[2:]]
    return torch.cat([image, torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]], 1)


class VoxelFeatures:
    """The features that ``features_at`` has collected so far.

    Args:
        voxels: (N, 3) int64, x, y, z in the volume.
    """

    def __init__(self, voxels: Tensor) -> None:
        self.voxels = voxels.cpu()
        self.values: dict[str, Tensor] = {}  #: By depth, (N, F) float32 on the CPU.
        self._nearness = torch.full((len(voxels),), -torch.inf)

    def add(self, window: Sequence[int], starts: Tensor, features: Mapping[str, Tensor]) -> None:
        """Takes the voxels that are nearer to the centre of a window than to that of any window before.

        Args:
            window: Its size, voxels along x, y, z.
            starts: (B, 3) int64, the first voxels of a batch of windows in the volume.
            features: By depth, (B, F, x, y, z) at any resolution; a voxel takes the cell that it is in.
        """
        edges = torch.tensor(window)
        for number, start in enumerate(starts.cpu()):
            inside = self.voxels - start
            middle = (inside + 0.5) / edges  # from 0 to 1 along each axis
            nearness = -(middle - 0.5).abs().amax(1)
            taken = ((inside >= 0) & (inside < edges)).all(1) & (nearness > self._nearness)
            self._nearness[taken] = nearness[taken]
            for depth, volumes in features.items():
                if depth not in self.values:
                    self.values[depth] = torch.zeros(len(self.voxels), volumes.shape[1])
                x, y, z = (middle[taken] * torch.tensor(volumes.shape[2:])).long().to(volumes.device).unbind(1)
                self.values[depth][taken] = volumes[number][:, x, y, z].T.float().cpu()


@contextmanager
def features_at(network: nn.Module, places: Mapping[str, Place], voxels: Tensor) -> Iterator[VoxelFeatures]:
    """Inside the ``with`` block, collects features while any inferer runs the network over ``with_coordinates``.

    The network sees the image without the coordinates, which tell where a window lies. A voxel in several windows takes
    its features from the window in whose middle it is most.

    Args:
        network: In evaluation mode.
        places: See ``find_depths``.
        voxels: (N, 3) int64, x, y, z in the volume.
    """
    found = VoxelFeatures(voxels)
    captured: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    at: dict[str, Any] = {}

    def begins(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        image, *others = arguments
        captured.clear()
        calls.clear()
        at["window"] = image.shape[2:]
        # the middle is inside the volume even if the window is padded
        x, y, z = middle = [(edge - 1) // 2 for edge in image.shape[2:]]
        at["starts"] = image[:, -3:, x, y, z].round().long().cpu() - torch.tensor(middle)
        return image[:, :-3].contiguous(), *others

    def keeps(depth: str, place: Place) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...], result: Any = None) -> None:
            if calls.get(depth, 0) == place.call:
                captured[depth] = arguments[0] if place.of_input else result
            calls[depth] = calls.get(depth, 0) + 1

        return hook

    with ExitStack() as hooks:
        hooks.callback(network.register_forward_pre_hook(begins).remove)
        for depth, place in places.items():
            module = network.get_submodule(place.module)
            add = module.register_forward_pre_hook if place.of_input else module.register_forward_hook
            hooks.callback(add(keeps(depth, place)).remove)
        hooks.callback(network.register_forward_hook(lambda *_: found.add(at["window"], at["starts"], captured)).remove)
        yield found
