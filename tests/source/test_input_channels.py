"""Other numbers of input channels for any network, and inverted images."""

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.input_channels import inverted_network, with_input_channels
from riskft.source.load import load_source
from riskft.source.reading import outputs_of
from riskft.source.source import Source


def state(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def assert_same_state(network, before):
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


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


SIZE = (16, 16, 16)


NETWORKS = {
    "unet": lambda: nets.UNet(3, 2, 3, channels=(4, 8), strides=(2,), norm="instance"),
    "residual": lambda: nets.UNet(3, 2, 3, channels=(4, 8), strides=(2,), num_res_units=2, norm="batch"),
    "dynunet": lambda: nets.DynUNet(3, 2, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16]),
    "segresnet": lambda: nets.SegResNet(3, init_filters=8, in_channels=2, out_channels=3),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_it_gives_for_x_what_the_network_gives_for_minus_x(name):
    network = NETWORKS[name]().eval()
    image = torch.randn(1, 2, *SIZE)
    before = outputs_of(network(image))[0]
    negative, changed = inverted_network(network, SIZE)
    torch.testing.assert_close(outputs_of(negative(-image))[0], before)
    assert not torch.allclose(outputs_of(negative(image))[0], before)
    torch.testing.assert_close(outputs_of(network(image))[0], before)  # left alone
    state, other = network.state_dict(), negative.state_dict()
    differ = {key for key in state if not torch.equal(state[key], other[key])}
    assert {f"{name}.weight" for name in changed} <= differ  # DynUNet has modules under two names
    assert len({state[key].data_ptr() for key in differ}) == len(changed)


def test_no_convolution_takes_the_input_itself():
    with pytest.raises(InputError, match="cannot be inverted"):
        inverted_network(torch.nn.Sequential(torch.nn.InstanceNorm3d(1), torch.nn.Conv3d(1, 2, 1)), (4, 4, 4))


@torch.no_grad()
def test_a_source_is_inverted_where_it_is_said(tmp_path):
    network = NETWORKS["unet"]()
    torch.save(network.state_dict(), tmp_path / "net.pt")
    image = torch.randn(1, 1, *SIZE)
    loaded = {
        how: load_source(Source(NETWORKS["unet"](), str(tmp_path / "net.pt"), invert=how), 2, SIZE)
        for how in (False, True, "auto")
    }
    assert {how: source.inverted for how, source in loaded.items()} == {False: False, True: True, "auto": False}
    assert (loaded[True].adapted, loaded[False].adapted) == (("model.0.conv",), ())
    image = torch.randn(1, 2, *SIZE)
    torch.testing.assert_close(loaded[True].network(image), loaded[False].network(-image))
    twice = loaded["auto"].with_inversion()
    torch.testing.assert_close(twice.network(image), loaded[False].network(-image))
    assert not any(parameter.requires_grad for parameter in twice.network.parameters())
    assert not twice.network.training
