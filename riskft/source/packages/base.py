"""What a trained model that describes itself tells riskft."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """A trained model whose folder or side file says what it is.

    Attributes:
        weights: The file that holds its weights.
        config: Defaults that it implies, nested as in a riskft config: ``model.source.network`` (class_path and
            init_args, so that the run's config names the architecture in full), ``model.source.output``,
            ``model.source.inferer``, ``data.patch_size``, ``data.preprocessing``. The user's configs take precedence.
        class_names: What the output channels are, background first for a softmax head; None if it does not say.
        in_channels: Number of input channels; None if it does not say.
        kernel_axes: Where the model was trained on arrays with other axes than riskft's (x, y, z): axis i of a kernel
            in riskft's order is the file's axis ``kernel_axes[i]``; None for the same order.
    """

    weights: Path
    config: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    in_channels: int | None = None
    kernel_axes: tuple[int, int, int] | None = None
