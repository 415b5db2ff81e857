"""What a trained model that describes itself tells riskft."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """A trained model whose folder or side file describes it."""

    weights: Path  #: The file that holds its weights.
    #: Defaults that it implies, nested as in a riskft config: ``model.source.network`` (class_path and init_args, so
    #: that the run's config names the architecture in full), ``model.source.output``, ``model.source.inferer``,
    #: ``data.patch_size``, ``data.preprocessing``. The user's configs take precedence.
    config: dict[str, Any] = field(default_factory=dict)
    #: Names of the output channels, background first for a softmax head; None if unknown.
    class_names: tuple[str, ...] | None = None
    in_channels: int | None = None  #: Number of input channels; None if unknown.
    #: The file's kernel axis for each of riskft's axes x, y, z; None if the order is the same.
    kernel_axes: tuple[int, int, int] | None = None
