"""The options that define where fine-tuning starts: an architecture and, except from scratch, its weights."""

from dataclasses import dataclass
from typing import Literal

from monai.inferers import Inferer
from torch import nn

from riskft.errors import InputError
from riskft.files import without_addresses
from riskft.source.input_channels import FirstConvolution
from riskft.source.output import SourceOutput

Load = Literal["network", "encoder", "not_first", "none"]


@dataclass
class Source:
    """Where fine-tuning starts.

    Args:
        network: Any convolutional segmentation network by ``class_path``, with the options that it was trained with.
            For a checkpoint that riskft wrote, the numbers of classes and channels come from the file. null uses the
            checkpoint's own description, if it has one.
        checkpoint: Its weights: a riskft or Lightning ``.ckpt``, a state dict (``.pt``, ``.pth``, ``.safetensors``), or
            a model that describes itself (nnU-Net v2 folder, MONAI bundle, MeshNet).
        weights: Which copy of the weights to take if the checkpoint holds several, for example ``net_ema`` or
            ``model_ema``. null takes the one that fits best; the log names the others.
        load: What training takes from the checkpoint: the weights of the ``network``; those of its ``encoder`` alone
            (what runs up to the lowest resolution; the rest and the head start at random); all but those of the first
            convolution and its normalisation (``not_first``), which start at random; or ``none``, which trains
            from scratch whatever ``checkpoint`` is. A model that describes itself still gives its architecture and
            defaults.
        head: Name or names of the modules that make up the network's head. null finds them.
        first_convolution: How to adapt the first convolution to another number of channels: start each new channel as
            the ``mean`` of the old ones, or ``repeat`` the old ones in turn.
        min_loaded: Share of the parameters that the checkpoint must fill in plain fine-tuning (phase 1 needs all).
        output: Meaning of the channels: ``riskft.SoftmaxOutput`` or ``riskft.SigmoidOutput``; ``applied`` says whether
            the network already returns probabilities. null means sigmoid if the network ends in one, else softmax.
        inferer: How phase 1 runs the source on whole volumes; null means ``model.inferer``. Set a larger window if the
            source needs to see more than a training patch.
        invert: Give the source, and the network fine-tuned from it, inverted images (-x for x). ``auto`` lets phase 1
            find out which of the two is more informative about the target's classes, at the cost of a second pass over
            at most eight training volumes. For images with background 0.
    """

    network: nn.Module | None = None
    checkpoint: str | None = None
    weights: str | None = None
    load: Load = "network"
    head: list[str] | str | None = None
    first_convolution: FirstConvolution = "mean"
    min_loaded: float = 0.5
    output: SourceOutput | None = None
    inferer: Inferer | None = None
    invert: bool | Literal["auto"] = False

    def __post_init__(self) -> None:
        self.head = [self.head] if isinstance(self.head, str) else self.head
        if not 0 <= self.min_loaded <= 1:
            raise InputError(f"model.source.min_loaded is {self.min_loaded}, expected a share from 0 to 1.")

    @property
    def trained(self) -> bool:
        """Whether fine-tuning starts from its weights; otherwise it trains from scratch."""
        return self.load != "none" and self.checkpoint is not None

    def architecture(self) -> nn.Module:
        """Returns the network as configured; raises InputError if there is none."""
        if self.network is not None:
            return self.network
        if self.checkpoint is None:
            raise InputError("model.source.network is not set. Give it by class_path, as in configs/model/unet.yaml.")
        raise InputError(
            f"{self.checkpoint}: does not say what network it belongs to, and model.source.network is not set.",
            [
                "Models that describe themselves: nnU-Net v2 trained-model folders, MONAI bundle folders, MeshNet's "
                ".json beside its weights. For all others give model.source.network by class_path, as in "
                "configs/model/unet.yaml."
            ],
        )

    def description(self) -> str:
        """Returns the architecture and its use as text, for the fingerprint."""
        return without_addresses(f"{self.architecture()!r} {self.output!r} {self.first_convolution}")
