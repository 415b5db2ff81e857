"""Which of a network's weights do not start from the source's."""

from collections.abc import Sequence

from torch import nn

from riskft.errors import InputError
from riskft.source.features import encoder_keys
from riskft.source.source import Load
from riskft.source.trace import trace


def fresh_keys(network: nn.Module, size: Sequence[int], load: Load) -> frozenset[str]:
    """Returns the keys of a network's state that keep their initial values; ``load`` as in ``Source``, but not none.

    With ``encoder``, the head's are among them. ``size`` is a window that the network can run on, voxels along x, y, z.
    Raises InputError if the network has no encoder.
    """
    # by identity because a module may be registered under several names (DynUNet's encoder is)
    values = network.state_dict(keep_vars=True)
    if load == "encoder":
        encoder = encoder_keys(network, size)
        if not encoder:
            raise InputError(
                f"model.source.load is encoder, but {type(network).__name__} has none: no layer lowers the resolution. "
                "Choose network or not_first."
            )
        kept = {id(values[key]) for key in encoder if key in values}
        return frozenset(key for key, value in values.items() if id(value) not in kept)
    block = _first_block(network, size) if load == "not_first" else set()
    fresh = {id(value) for key, value in values.items() if key.rpartition(".")[0] in block}
    return frozenset(key for key, value in values.items() if id(value) in fresh)


def _first_block(network: nn.Module, size: Sequence[int]) -> set[str]:
    """Returns the names of the layers that take the image, and of the normalisations and activations after each."""
    found = trace(network, size, training=False)
    block: set[str] = set()
    inside = False
    for name in found.sized:
        inside = name in found.first if name in found.executed else inside
        block |= {name} if inside else set()
    return block
