"""What a trained model that describes itself tells riskft."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """A trained model whose folder or side file describes it.

    Attributes:
        weights: The file that holds its weights.
        config: Defaults that it implies, nested as in a riskft config: ``model.source.network`` (class_path and
            init_args, so that the run's config names the architecture in full), ``model.source.output``,
            ``model.source.inferer``, ``data.patch_size``, ``data.preprocessing``. The user's configs take precedence.
        class_names: Names of the output channels, background first for a softmax head; None if unknown.
        in_channels: Number of input channels; None if unknown.
        kernel_axes: The file's kernel axis for each of riskft's axes x, y, z; None if the order is the same.
    """

    weights: Path
    config: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    in_channels: int | None = None
    kernel_axes: tuple[int, int, int] | None = None
