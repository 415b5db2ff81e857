"""The source network adapted to the target's channels and window, ready for phase 1."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from riskft.data.io.memory import planes_at_once
from riskft.files import without_addresses
from riskft.run.record import Record
from riskft.source.activation import probability_check
from riskft.source.input_channels import inverted_network
from riskft.source.output import SourceOutput
from riskft.source.reading import Readings
from riskft.source.windows import logits_in_parts


@dataclass(frozen=True)
class SourceNetwork:
    """The frozen source network, with its own head and the target's input channels, ready for phase 1."""

    network: nn.Module  #: In evaluation mode, without gradients.
    output: SourceOutput  #: What its output channels mean.
    read: Readings  #: How its result is read.
    channels: int  #: Number of its output channels.
    last: tuple[str, ...]  #: Names of the convolutions that give the outputs, see ``Trace``.
    size: tuple[int, ...]  #: Window that it can run on, voxels along x, y, z.
    digest: str  #: Fingerprint of the source's weights.
    #: Names of the output channels if the checkpoint states them, else None.
    class_names: tuple[str, ...] | None = None
    #: Names of the first convolutions that were adapted to the target's channels or negated.
    adapted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  #: Keys of the network that the checkpoint did not fill.
    unused: tuple[str, ...] = ()  #: Keys of the checkpoint that the network does not have.
    #: How it runs on whole volumes.
    inferer: Inferer = SimpleInferer()  # noqa: RUF009 - it has no state
    channels_last: bool = False  #: Whether it runs in channels-last memory order.
    inverted: bool = False  #: Whether it sees inverted images.
    record: Record | None = None  #: How it was trained if riskft trained it, else None.

    def with_inversion(self) -> "SourceNetwork":
        """Returns the source that sees inverted images; raises InputError if no convolution takes the input itself."""
        network, names = inverted_network(self.network, self.size)
        adapted = tuple(dict.fromkeys([*self.adapted, *names]))
        return replace(self, network=network, adapted=adapted, inverted=True)

    def predictor(self) -> Callable[[Tensor], Iterator[Tensor]]:
        """Returns the function that phase 1 runs on whole volumes.

        It takes images (1, C, X, Y, Z) and yields probabilities, (|Z|, depth, Y, Z), of parts that follow one another
        along x. It raises InputError if the first volumes show probabilities where logits are expected.
        """
        check = probability_check(self.network, self.read, self.output)

        def logits(patch: Tensor) -> Tensor:
            found = self.read(self.network, patch)[0]
            check.patch(found)
            return found

        def states(image: Tensor) -> Iterator[Tensor]:
            if self.channels_last:
                image = image.contiguous(memory_format=torch.channels_last_3d)
            for part in logits_in_parts(self.inferer, image, logits):
                # a few planes at a time, because float32 and softmax make copies
                for planes in torch.split(part[0].movedim(1, 0), planes_at_once(part.shape)):
                    check.part(planes)
                    yield self.output.states(planes.float()).movedim(0, 1)
            check.volume()

        return states


def options_as_text(inferer: Inferer) -> dict[str, str]:
    """Returns the class and options of an inferer, for a fingerprint."""
    options = {key: without_addresses(str(value)) for key, value in vars(inferer).items() if not key.startswith("_")}
    return {"class": type(inferer).__name__, **options}
