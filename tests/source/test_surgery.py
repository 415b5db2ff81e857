"""Other numbers of input channels and classes for any network."""

import copy

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.outputs import outputs_of
from riskft.source.surgery import trace, with_classes, with_input_channels


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


@pytest.mark.parametrize("channels", [1, 4])
def test_with_input_channels(zoo, channels):
    network = zoo.build(2, 3)
    before = state(network)
    new, names = with_input_channels(network, channels, zoo.size)
    assert_same_state(network, before)
    assert names
    assert all(new.get_submodule(name).in_channels == channels for name in names)
    image = zoo.image(1)
    with torch.no_grad():
        old_response = network(image.expand(1, 2, *zoo.size))
        new_response = new(image.expand(1, channels, *zoo.size))
    torch.testing.assert_close(new_response, old_response, atol=1e-5, rtol=1e-4)
    unchanged = {key for key in before if not any(key == f"{name}.weight" for name in names)}
    changed = {key for key, value in new.state_dict().items() if value.shape != before[key].shape}
    # DynUNet registers its first block again under skip_layers
    assert {key.rpartition(".")[0].split("skip_layers.")[-1] for key in changed - {f"{n}.weight" for n in names}} <= {
        "downsample.conv1.conv"
    }
    assert all(torch.equal(new.state_dict()[key], before[key]) for key in unchanged - changed)


def test_residual_input_has_two_first_convolutions():
    network = nets.UNet(3, 2, 3, channels=(4, 8), strides=(2,), num_res_units=2)
    _, names = with_input_channels(network, 3, (8, 8, 8))
    assert names == ["model.0.residual", "model.0.conv.unit0.conv"]


def test_same_number_of_channels_is_no_surgery(zoo):
    network = zoo.build(2, 3)
    assert with_input_channels(network, 2, zoo.size) == (network, [])


def test_new_input_weights_are_the_scaled_mean():
    network = nn.Sequential(nn.Conv3d(2, 1, 1, bias=False))
    network[0].weight.data = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    new, names = with_input_channels(network, 4, (2, 2, 2))
    assert names == ["0"]
    # mean 2, times 2 old / 4 new channels
    assert new[0].weight.flatten().tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("channels", "expected"),
    # old (1, 3); new c is old c mod 2, times 2 / channels
    [(1, [2.0]), (3, [2 / 3, 2.0, 2 / 3]), (4, [0.5, 1.5, 0.5, 1.5])],
)
def test_new_input_weights_repeat_the_old(channels, expected):
    network = nn.Sequential(nn.Conv3d(2, 1, 1, bias=False))
    network[0].weight.data = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1, 1)
    new, _ = with_input_channels(network, channels, (2, 2, 2), "repeat")
    torch.testing.assert_close(new[0].weight.flatten(), torch.tensor(expected))
    if channels == 4:  # divisible: four equal channels give what two gave, 5 * (1 + 3)
        assert new(torch.full((1, 4, 2, 2, 2), 5.0)).unique().tolist() == [20.0]
        pair = torch.stack([torch.full((2, 2, 2), 1.0), torch.full((2, 2, 2), 10.0)])
        # and each old channel given twice gives the same, 1 * 1 + 10 * 3: the mean does not
        assert new(pair.repeat(2, 1, 1, 1)[None]).unique().tolist() == [31.0]


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
        (["model.2.cnov"], r"'model\.2\.cnov' is none; the nearest are: .*model\.2\.conv"),
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


@pytest.mark.parametrize("how", ["mean", "repeat"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_first_convolution_answers_equal_channels_as_before(how, transposed):
    """A transposed convolution has its input channels along the other axis of its kernel."""
    torch.manual_seed(0)
    first = nn.ConvTranspose3d(2, 3, 3, padding=1) if transposed else nn.Conv3d(2, 3, 3, padding=1)
    network = nn.Sequential(first, nn.Conv3d(3, 2, 1))
    new, names = with_input_channels(network, 4, (4, 4, 4), how)
    assert names == ["0"]
    image = torch.randn(1, 1, 4, 4, 4)
    with torch.no_grad():
        old_answer, answer = network(image.expand(1, 2, 4, 4, 4)), new(image.expand(1, 4, 4, 4, 4))
    torch.testing.assert_close(answer, old_answer)
    assert network[0].in_channels == 2
    assert new[0].in_channels == 4


def test_same_classes_give_a_network_of_its_own():
    network = nets.UNet(3, 1, 3, channels=(4, 8), strides=(2,))
    new, _ = with_classes(network, 3, (8, 8, 8))
    with torch.no_grad():
        next(new.parameters()).add_(1)
    assert not torch.equal(next(new.parameters()), next(network.parameters()))
