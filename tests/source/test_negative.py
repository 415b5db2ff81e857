"""A network that sees its images in negative."""

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.invert import inverted_network
from riskft.source.load import load_source
from riskft.source.outputs import outputs_of
from riskft.source.source import Source

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
    twice = loaded["auto"].in_negative()
    torch.testing.assert_close(twice.network(image), loaded[False].network(-image))
    assert not any(parameter.requires_grad for parameter in twice.network.parameters())
    assert not twice.network.training
