"""Other numbers of classes for any network."""

import copy

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.classes import with_classes
from riskft.source.input_channels import with_input_channels
from riskft.source.reading import outputs_of
from riskft.source.trace import trace


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_same_state(network, before):
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_with_classes(zoo, classes):
    network = zoo.build(2, 3)
    before = state(network)
    new, names = with_classes(network, classes, zoo.size)
    assert_same_state(network, before)
    assert new is not network
    assert names == zoo.head  # also if the number of classes is right already: the head is all that mixes classes
    with torch.no_grad():
        outputs = outputs_of(copy.deepcopy(new).train()(torch.zeros(2, 2, *zoo.size)))
    assert {output.shape[1] for output in outputs} == {classes}
    for key, value in new.state_dict().items():
        if not any(key.startswith(f"{name}.") for name in names) and "heads" not in key and "skip_layers" not in key:
            assert torch.equal(value, before[key]), key
    # what the surgery gives is what the network's own constructor gives
    expected = {key: value.shape for key, value in zoo.build(2, classes).state_dict().items()}
    assert {key: value.shape for key, value in new.state_dict().items()} == expected


def test_with_the_same_classes_the_weights_stay(zoo):
    network = zoo.build(1, 3)
    new, _ = with_classes(network, 3, zoo.size)
    assert_same_state(new, state(network))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("residual_units", [0, 2])
def test_as_many_features_as_classes(classes, residual_units):
    network = nets.UNet(3, 1, 4, channels=(4, 8), strides=(2,), num_res_units=residual_units)
    new, names = with_classes(network, classes, (8, 8, 8))
    assert trace(new, (8, 8, 8)).channels == [classes]
    assert names[0] == ("model.2.0.conv" if residual_units else "model.2.conv")


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_named_head_is_the_one_that_is_found(zoo, classes):
    network = zoo.build(1, 3)
    found, names = with_classes(network, classes, zoo.size)
    given, same = with_classes(network, classes, zoo.size, names)
    assert set(same) == set(names)
    assert same[0] == names[0]
    assert {key: value.shape for key, value in given.state_dict().items()} == {
        key: value.shape for key, value in found.state_dict().items()
    }


def test_a_head_named_by_the_module_around_it():
    network = nets.UNet(3, 1, 3, channels=(4, 8), strides=(2,), num_res_units=2)
    new, names = with_classes(network, 5, (8, 8, 8), ["model.2"])
    assert names == ["model.2.0.conv", "model.2.1.conv.unit0.conv", "model.2.0.adn.N"][: len(names)]
    assert trace(new, (8, 8, 8)).channels == [5]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (["model.2.cnov"], r"'model\.2\.cnov' does not exist; the nearest are: .*model\.2\.conv"),
        (["model.0.conv"], r"'model\.0\.conv' has 4 output channels, the network 3"),
        (["model.0.adn"], "there is no convolution among them that runs"),
    ],
)
def test_a_named_head_that_is_none(head, message):
    with pytest.raises(InputError, match=message):
        with_classes(nets.UNet(3, 1, 3, channels=(4, 8), strides=(2,)), 5, (8, 8, 8), head)


def test_half_a_named_head_does_not_do():
    network = nets.UNet(3, 1, 3, channels=(4, 8), strides=(2,), num_res_units=2)
    with pytest.raises(InputError, match=r"does not give 5 channels .* Name all that work on the class channels"):
        with_classes(network, 5, (8, 8, 8), ["model.2.1.conv.unit0.conv"])


class Sums(nn.Module):
    """Its two outputs are sums of features: no convolution has as many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 4, 1)

    def forward(self, image):
        return self.stem(image).unflatten(1, (2, 2)).sum(2)


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv3d(2, 4, 1, groups=2), nn.Conv3d(4, 2, 1))


@pytest.mark.parametrize(
    ("adapt", "message"),
    [
        (lambda: with_classes(Sums(), 3, (4, 4, 4)), "Sums has 2 output channels, but no convolution at its end"),
        (lambda: with_input_channels(Grouped(), 3, (4, 4, 4)), "'0' is grouped and cannot take 3 channels"),
        (lambda: with_classes(nn.Identity(), 2, (4, 4, 4)), "Identity has no convolution"),
        (
            lambda: with_classes(nets.UNet(3, 1, 2, (4, 8, 8), (2, 2)), 3, (6, 6, 6)),
            "UNet does not run on a window of 6 x 6 x 6 voxels",
        ),
    ],
)
def test_what_cannot_be_adapted_is_named(adapt, message):
    with pytest.raises(InputError, match=message):
        adapt()


def test_same_classes_give_a_network_of_its_own():
    network = nets.UNet(3, 1, 3, channels=(4, 8), strides=(2,))
    new, _ = with_classes(network, 3, (8, 8, 8))
    with torch.no_grad():
        next(new.parameters()).add_(1)
    assert not torch.equal(next(new.parameters()), next(network.parameters()))
