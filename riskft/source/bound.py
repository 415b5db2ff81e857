"""The source as a target uses it: its weights for the target's channels and window, and how phase 1 runs it."""

import logging
from collections.abc import Sequence

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from riskft.errors import InputError
from riskft.files import without_addresses
from riskft.run.record import Record
from riskft.source.network import LoadedSource, Source, architecture, inverted, load
from riskft.source.outputs import Readings
from riskft.source.probabilities import ProbabilityCheck

log = logging.getLogger(__name__)


class BoundSource:
    """A source, and what its use depends on.

    Args:
        source: Architecture and checkpoint.
        in_channels: The target's number of channels.
        size: Voxels along x, y, z that the network can be run on.
        inferer: How the target's network segments whole volumes; the source's own goes before it.
        channels_last: Run it in channels-last memory order.
    """

    def __init__(
        self, source: Source, in_channels: int, size: Sequence[int], inferer: Inferer, channels_last: bool = False
    ) -> None:
        self.source = source
        self.inferer = source.inferer or inferer
        self._in_channels = in_channels
        self._size = list(size)
        self._channels_last = channels_last
        self._loaded: LoadedSource | None = None
        self.digest: str | None = None
        self.record: Record | None = None

    @property
    def trained(self) -> bool:
        """Whether the target starts from its weights; else it starts from scratch."""
        return self.source.load != "none" and self.source.checkpoint is not None

    @property
    def compares_negative(self) -> bool:
        """Whether phase 1 shall find out if the source is better shown its images in negative."""
        return self.source.invert == "auto"

    def check(self, whole: bool) -> None:
        """Loads the weights, for their faults to be known before hours of preprocessing; ``load`` then has them.

        Args:
            whole: As ``load`` will be asked.

        Raises:
            InputError: As ``load`` says.
        """
        if whole or self.source.load != "none":
            self._loaded = self.load(whole)
        elif self.source.checkpoint is not None:
            log.info(
                "The weights of %s are not loaded, because model.source.load is none: training starts from scratch.",
                self.source.checkpoint,
            )

    def load(self, whole: bool = True) -> LoadedSource:
        """Builds the frozen source network.

        Args:
            whole: Nothing may be missing in the checkpoint, which phase 1 needs.

        Raises:
            InputError: If there is no checkpoint, it must not be loaded, or it does not fit.
        """
        if self.source.load == "none":
            raise InputError(
                "model.source.load is none, and phase 1 (riskft.RiskMapCallback in trainer.callbacks) needs a source's "
                "weights. To train from scratch, use configs/method/scratch.yaml alone, which has no phase 1; to start "
                "from the source, set model.source.load to network."
            )
        if self.source.checkpoint is None:
            raise InputError(
                "model.source.checkpoint is not set, and training starts from its weights (model.source.load is "
                "network). Set it; or to train from scratch, use configs/method/scratch.yaml, which sets "
                "model.source.load to none."
            )
        loaded, self._loaded = self._loaded, None
        loaded = loaded or load(self.source, self._in_channels, self._size, whole=whole)
        self.digest, self.record = loaded.digest, loaded.record
        return loaded

    def in_negative(self, loaded: LoadedSource) -> LoadedSource:
        """Returns the source network as it sees its images in negative."""
        return inverted(loaded, self._size)

    def infer(self, image: Tensor, network: nn.Module, read: Readings, check: ProbabilityCheck | None = None) -> Tensor:
        """Returns the logits (1, K, X, Y, Z) of a source network for a whole volume.

        Args:
            image: (1, C, X, Y, Z).
            network: The source network.
            read: How its result is read.
            check: Looks if the outputs are probabilities.

        Raises:
            InputError: If they are, by the check.
        """
        if self._channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)

        def run(patch: Tensor) -> Tensor:
            logits = read(network, patch)[0]
            if check is not None:
                check.patch(logits)
            return logits

        logits: Tensor = self.inferer(image, run)
        if check is not None:
            check.volume(logits)
        return logits

    def description(self) -> str:
        """Returns the source's architecture and how it is used as text, for the fingerprint."""
        source = self.source
        return without_addresses(f"{architecture(source)!r} {source.output!r} {source.first_convolution}")

    def inferer_description(self) -> dict[str, str]:
        """Returns the options of the inferer as text, for the fingerprint."""
        return options_as_text(self.inferer)


def options_as_text(inferer: Inferer) -> dict[str, str]:
    """Returns the class and the options of an inferer, for a fingerprint."""
    options = {key: without_addresses(str(value)) for key, value in vars(inferer).items() if not key.startswith("_")}
    return {"class": type(inferer).__name__, **options}
