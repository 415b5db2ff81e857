"""Networks of all kinds: several outputs, any order of registration, any first and last layer, any failure."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.activation import describe, freeze_unused, readings
from riskft.source.classes import with_classes
from riskft.source.input_channels import inverted_network, with_input_channels
from riskft.source.reading import outputs_of, segmentations
from riskft.source.trace import trace

SIZE = (16, 16, 16)
SMALL = {"spatial_dims": 3, "init_filters": 8, "blocks_down": (1, 1, 1)}

# how to build it from (in_channels, out_channels), its head, its first layers, and the edge that it runs on
MONAI = {
    "vae": (
        lambda c, k: nets.SegResNetVAE(
            [16] * 3, spatial_dims=3, init_filters=8, in_channels=c, out_channels=k, blocks_down=(1, 1), blocks_up=(1,)
        ),
        ["conv_final.2.conv"],
        ["convInit.conv"],
        16,
    ),
    "ds": (
        lambda c, k: nets.SegResNetDS(in_channels=c, out_channels=k, dsdepth=2, **SMALL),
        ["up_layers.0.head", "up_layers.1.head"],
        ["encoder.conv_init"],
        16,
    ),
    "two branches": (
        lambda c, k: nets.SegResNetDS2(in_channels=c, out_channels=k, dsdepth=1, **SMALL),
        ["up_layers.1.head", "up_layers_auto.1.head"],
        ["encoder.conv_init"],
        16,
    ),
    "unet++": (
        lambda c, k: nets.BasicUNetPlusPlus(3, c, k, (4, 4, 4, 4, 8, 4), deep_supervision=True),
        [f"final_conv_0_{level}" for level in (1, 2, 3, 4)],
        ["conv_0_0.conv_0.conv"],
        32,
    ),
    "norm after the head": (lambda c, k: nets.HighResNet(3, c, k), ["blocks.11.conv", "blocks.11.adn.N"],
                            ["blocks.0.conv"], 16),
    "padded input": (
        lambda c, k: nets.FlexibleUNet(c, k, "efficientnet-b0", decoder_channels=(8, 8, 8, 8, 4), spatial_dims=3),
        ["segmentation_head.0"],
        ["encoder._conv_stem"],
        32,
    ),
    "repeated input": (lambda c, k: nets.VNet(3, c, k), ["out_tr.conv2"], ["in_tr.conv_block.conv"], 16),
}  # fmt: skip


@pytest.mark.parametrize("name", MONAI)
def test_monai_s_networks_take_other_classes_and_channels(name):
    build, head, first, edge = MONAI[name]
    size = (edge,) * 3
    network, names = with_classes(build(2, 3).to("meta"), 5, size)
    assert set(names) == set(head)
    network, names = with_input_channels(network, 4, size)
    assert names == first
    found = trace(network, size)
    assert (found.in_channels, set(found.channels)) == (4, {5})


class Net(nn.Module):
    """A stem and a head, which subclasses use as they like."""

    def __init__(self, classes=2, channels=1) -> None:
        super().__init__()
        self.head = nn.Conv3d(8, classes, 1)  # registered before the stem
        self.aux = nn.Conv3d(8, classes, 1)
        self.stem = nn.Conv3d(channels, 8, 3, padding=1)

    def features(self, image):
        return self.stem(image).relu()

    def forward(self, image):
        return self.head(self.features(image))


Pair = namedtuple("Pair", "loss logits")


@dataclass
class Result:
    hidden: torch.Tensor
    logits: torch.Tensor | None = None


class Dictionary(Net):
    def forward(self, image):
        x = self.features(image)
        return {"aux": self.aux(x), "out": self.head(x)}


class Named(Net):
    def forward(self, image):
        x = self.features(image)
        return Pair(x.mean(), self.head(x))


class Record(Net):
    def forward(self, image):
        x = self.features(image)
        return Result(x.mean((2, 3, 4)), self.head(x))


class Nested(Net):
    """Half the resolution first, and a reconstruction of one channel."""

    def forward(self, image):
        x = self.features(image)
        return None, ([self.aux(x)[..., ::2, ::2, ::2], self.head(x)], image), {"loss": 3.0}


class TwoStages(Net):
    """A coarse result, and one that needs all of the network."""

    def forward(self, image):
        x = self.features(image)
        coarse = self.aux(x)
        return coarse, self.head(x) + 0 * coarse


class OnlyTraining(Net):
    """As torchvision's and nnU-Net's: more outputs in training."""

    def forward(self, image):
        x = self.features(image)
        return [self.head(x), self.aux(x)] if self.training else self.head(x)


@pytest.mark.parametrize("kind", [Dictionary, Named, Record, Nested, TwoStages, OnlyTraining])
@pytest.mark.parametrize("training", [True, False])
def test_the_segmentation_is_found_among_the_outputs(kind, training):
    network = kind().train(training)
    image = torch.randn(1, 1, 6, 6, 6)
    read = readings(network, (6, 6, 6), None)
    expected = network.head(network.features(image))
    torch.testing.assert_close(read(network, image)[0], expected)


@pytest.mark.parametrize("kind", [Dictionary, Nested, OnlyTraining])
def test_all_heads_of_the_classes_are_resized(kind):
    new, names = with_classes(kind(), 5, (6, 6, 6))
    assert set(names) == {"head", "aux"}
    assert [output.shape[1] for output in outputs_of(new(torch.zeros(1, 1, 6, 6, 6)))] == [5, 5]


def test_several_outputs_are_told():
    network = Dictionary()
    (line,) = describe(network, readings(network, (6, 6, 6), None))
    assert "returns several outputs: 'out' is the segmentation, 'aux' train too" in line


def test_the_order_of_registration_does_not_count():
    """The first convolution that is registered is the head, of 8 channels."""
    network, names = with_input_channels(Net(), 3, SIZE)
    assert names == ["stem"]
    assert network.stem.weight.shape == (8, 3, 3, 3, 3)
    image = torch.randn(1, 1, 6, 6, 6)
    assert trace(network, SIZE).in_channels == 3
    old = Net()
    old.load_state_dict({**network.state_dict(), "stem.weight": network.stem.weight.sum(1, keepdim=True)})
    torch.testing.assert_close(network(image.expand(1, 3, 6, 6, 6)), old(image))


class Normalised(Net):
    """Batch normalisation of the input, then padding by hand."""

    def __init__(self, channels=2) -> None:
        super().__init__(channels=channels)
        self.stem.padding = (0, 0, 0)
        self.norm = nn.BatchNorm3d(channels)

    def features(self, image):
        return self.stem(nn.functional.pad(self.norm(image), [1] * 6))


def test_a_normalisation_before_the_first_convolution_is_resized_too():
    network = Normalised().eval()
    network.norm.weight.data = torch.tensor([1.0, 3.0])
    new, names = with_input_channels(network, 3, SIZE)
    assert names == ["stem"]
    assert new.norm.weight.tolist() == [2, 2, 2]
    assert trace(new, SIZE).in_channels == 3
    repeated, _ = with_input_channels(network, 3, SIZE, "repeat")
    assert repeated.norm.weight.tolist() == [1, 3, 1]
    with pytest.raises(
        InputError, match="'stem' of Normalised takes more than the input itself: it cannot be inverted"
    ):
        inverted_network(network, SIZE)


class LinearHead(Net):
    """A linear layer for each voxel, as transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)

    def forward(self, image):
        return self.head(self.features(image).movedim(1, -1)).movedim(-1, 1)


class Transposed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 2, stride=2)
        self.head = nn.ConvTranspose3d(8, 2, 2, stride=2)


@pytest.mark.parametrize("kind", [LinearHead, Transposed])
def test_other_layers_as_a_head(kind):
    new, names = with_classes(kind(), 5, SIZE)
    assert names == ["head"]
    assert new(torch.zeros(1, 1, *SIZE)).shape == (1, 5, *SIZE)


class Labels(Net):
    def forward(self, image):
        return super().forward(image).argmax(1, keepdim=True)


class OneHot(Net):
    def forward(self, image):
        return nn.functional.one_hot(super().forward(image).argmax(1), 2).movedim(-1, 1).float()


class Valid(Net):
    def features(self, image):
        return self.stem(image)[..., 1:-1, 1:-1, 1:-1]


class Assertion(Net):
    def forward(self, image):
        assert image.shape[2] == 48, "made for 48 voxels"
        return super().forward(image)


class TwoArguments(Net):
    def forward(self, image, prompt):
        return super().forward(image)


class Together(Net):
    """The input enters twice: by itself and with features."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(9, 2, 1)

    def forward(self, image):
        return self.head(torch.cat([image, self.features(image)], 1))


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.LazyConv3d(8, 3, padding=1)


def old_weight_norm():
    network = Net()
    nn.utils.weight_norm(network.stem)
    network(torch.zeros(1, 1, 4, 4, 4))
    return network


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Labels, r"returns Tensor of int64 \(2, 1, 16, 16, 16\), expected logits"),
        (OneHot, "The output of OneHot has no gradient"),
        (Valid, "Valid returns 14 x 14 x 14 voxels for a window of 16 x 16 x 16, expected as many"),
        (Assertion, r"made for 48 voxels\)\.\n.*It runs on 48 x 48 x 48: set data\.patch_size"),
        (TwoArguments, r"prompt.*\n.*It does not run on larger windows either\. Is it a 3-D segmentation network"),
        (lambda: nets.UNet(2, 1, 2, (4, 8), (2,)), r"UNet is a 2-D network \(its convolutions are Conv2d\)"),
        (lambda: nets.UNet(3, 1, 2, (4, 8, 8, 8, 8, 8), (2,) * 5), r"spatial element.*\n.*It runs on 64 x 64 x 64"),
        (Lazy, "Lazy has lazy layers"),
        (old_weight_norm, "Net cannot be copied"),
        (lambda: nn.Sequential(nn.Softmax(1)), "Sequential has no convolution"),
    ],
)
def test_what_does_not_run_says_why(build, message):
    with pytest.raises(InputError, match=message) as caught:
        readings(build(), SIZE, None)
    assert "multiples" not in str(caught.value)


def test_an_input_that_enters_elsewhere_too_is_named():
    with pytest.raises(InputError, match=r"cannot be given 3 input channels .*; its layer 'head' takes the input too"):
        with_input_channels(Together(), 3, SIZE)
    with pytest.raises(InputError, match="'head' of Together takes more than the input itself"):
        inverted_network(Together(), SIZE)


def test_parameters_without_use():
    assert trace(Net(), SIZE).unused == ["aux.weight", "aux.bias"]
    assert trace(Dictionary(), SIZE).unused == []


def test_a_stack_of_resolutions_is_taken_apart():
    stacked = torch.arange(12.0).reshape(2, 3, 2, 1, 1, 1)
    assert {path: tensor.flatten().tolist() for path, tensor in segmentations([stacked, 3.0]).items()} == {
        "0.0": [0, 1, 6, 7], "0.1": [2, 3, 8, 9], "0.2": [4, 5, 10, 11]
    }  # fmt: skip


def test_parameters_without_use_are_frozen_and_no_others():
    network = Net()
    freeze_unused(network, readings(network, SIZE, None))
    assert [name for name, value in network.named_parameters() if not value.requires_grad] == ["aux.weight", "aux.bias"]
    network = Dictionary()
    freeze_unused(network, readings(network, SIZE, None))
    assert all(value.requires_grad for value in network.parameters())


def test_networks_of_inference_mode_are_traced():
    """In `test` Lightning loads the source for the panels in inference mode."""
    with torch.inference_mode():
        network = Net()
        inside = trace(network, SIZE)
    assert inside.first == trace(Net(), SIZE).first
    assert inside.unused == ["aux.weight", "aux.bias"]
    assert trace(network, SIZE).channels == inside.channels


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_same_state(network, before):
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_input_channels():
    assert trace(nets.UNet(3, 3, 2, (4, 8), (2,)), (8, 8, 8)).in_channels == 3


def test_outputs_of():
    plain = torch.zeros(2, 3, 4, 4, 4)
    assert outputs_of(plain)[0] is plain
    stacked = torch.arange(2.0 * 3).reshape(2, 3, 1, 1, 1, 1)
    assert [level.flatten().tolist() for level in outputs_of(stacked)] == [[0, 3], [1, 4], [2, 5]]
    assert outputs_of((plain, plain)) == [plain, plain]
    with pytest.raises(InputError, match="returns list"):
        outputs_of([])


def test_trace_changes_nothing():
    network = nets.UNet(3, 1, 2, (4, 8), (2,), num_res_units=1, norm="batch").eval()
    before = state(network)
    found = trace(network, (8, 8, 8))
    assert found.channels == [2]
    assert found.executed[-1].startswith("model.2")
    assert_same_state(network, before)
    assert not network.training
    assert not any(module._forward_hooks for module in network.modules())
