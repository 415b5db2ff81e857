"""Which weights start from the source's if a part of it is loaded."""

import pytest
import torch
from conftest import Zoo
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.features import features_at, find_depths, with_coordinates
from riskft.source.fresh import fresh_keys
from riskft.source.packages.meshnet import MeshNet

SIZE = (16, 16, 16)


def parts(keys, length):
    return {".".join(key.split(".")[:length]) for key in keys}


def test_parts_of_a_unet_with_residual_units():
    network = nets.UNet(3, 2, 3, (4, 8, 8), (2, 2), num_res_units=2, norm="batch")
    # the first block's two convolutions of the image: the residual one, and the first unit's with norm and PReLU
    assert parts(fresh_keys(network, SIZE, "not_first"), 4) == {
        "model.0.residual.weight",
        "model.0.residual.bias",
        "model.0.conv.unit0",
    }
    # model.1.submodule is the next level, and its submodule.1.submodule the bottleneck
    assert parts(fresh_keys(network, SIZE, "encoder"), 4) == {
        *("model.1.submodule.2", "model.2.0.conv", "model.2.0.adn", "model.2.1.conv"),
    }
    assert fresh_keys(network, SIZE, "network") == frozenset()
    small = nets.UNet(3, 1, 3, (4, 8), (2,))  # all of its features have half of the image's resolution
    assert parts(fresh_keys(small, SIZE, "encoder"), 2) == {"model.2"}


def test_a_network_that_never_shrinks_has_no_encoder():
    layer = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1}
    channels = ((1, 5), (5, 5), (5, 3))
    network = MeshNet([{"in_channels": a, "out_channels": b, **layer} for a, b in channels])
    state = network.state_dict()
    first = next(key for key in state if state[key].ndim == 5).rpartition(".")[0]
    fresh = fresh_keys(network, SIZE, "not_first")
    assert f"{first}.weight" in fresh
    assert sum(state[key].ndim == 5 for key in fresh) == 1
    with pytest.raises(InputError, match=r"model\.source\.load is encoder, but MeshNet has none"):
        fresh_keys(network, SIZE, "encoder")


def test_a_module_under_several_names_has_one_origin():
    network = nets.DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8])
    fresh = fresh_keys(network, SIZE, "not_first")
    assert parts(fresh, 2) == {"input_block.conv1", "input_block.norm1", "skip_layers.downsample"}
    tensors = network.state_dict(keep_vars=True)
    same = {id(tensors[key]) for key in fresh}
    assert {key for key, value in tensors.items() if id(value) in same} == fresh


@pytest.mark.parametrize("name", ["dynunet", "segresnet", "unet_res_batch"])
def test_what_is_outside_the_encoder(name):
    """Random weights there change the logits, and not the bottleneck's features."""
    zoo = Zoo(name)
    network = zoo.build(1, 3)
    fresh = fresh_keys(network, zoo.size, "encoder")
    places = find_depths(network, zoo.head, zoo.size)
    voxels = torch.tensor([[0, 1, 2], [7, 6, 5]])

    def run():
        with torch.no_grad(), features_at(network, {"bottleneck": places["bottleneck"]}, voxels) as found:
            return network(with_coordinates(zoo.image(1))), found.values["bottleneck"]

    logits, bottom = run()
    state, other = network.state_dict(), zoo.build(1, 3, seed=5).state_dict()
    network.load_state_dict({key: other[key] if key in fresh else value for key, value in state.items()})
    other_logits, same = run()
    assert torch.equal(bottom, same)
    assert not torch.allclose(logits, other_logits)
    assert 0 < len(fresh) < len(state)
    assert all(any(key.startswith(f"{head}.") for key in fresh) for head in zoo.head)
