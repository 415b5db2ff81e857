"""Features at chosen voxels: at three depths of any network, from the window in whose middle a voxel is."""

from itertools import pairwise

import pytest
import torch
from conftest import NETWORKS, Zoo
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import nn

from riskft.source.classes import with_classes
from riskft.source.features import VoxelFeatures, features_at, find_depths, with_coordinates
from riskft.source.packages.meshnet import MeshNet


def places_of(network, size):
    return find_depths(network, with_classes(network, 3, size)[1], size)


@pytest.mark.parametrize("name", NETWORKS)
def test_depths_of_many_networks(name):
    zoo = Zoo(name)
    network = zoo.build(1, 3)
    places = places_of(network, zoo.size)
    assert list(places) == ["encoder", "bottleneck", "decoder"]
    voxels = torch.tensor([[0, 1, 2], [7, 6, 5], [4, 4, 4]])
    with torch.no_grad(), features_at(network, places, voxels) as found:
        network(with_coordinates(zoo.image(1)))
    assert set(found.values) == set(places)
    assert all(len(values) == 3 and values.abs().sum() > 0 for values in found.values.values())
    # the segmentation's own head, not the first of several resolutions
    assert places["decoder"].module == (zoo.head[1] if name == "dynunet_deep" else zoo.head[0])
    state = network.state_dict()
    assert places["decoder"].needs < set(state)
    assert places["encoder"].needs <= places["bottleneck"].needs <= places["decoder"].needs


def test_a_network_of_five_resolutions():
    """Widths tell the depths of a U-Net: 2, 3, 5, 7, 11 channels from the top to the bottom."""
    layers = [nn.Sequential(nn.Conv3d(a, b, 3, s, 1), nn.ReLU()) for a, b, s in
              ((1, 2, 1), (2, 3, 2), (3, 5, 2), (5, 7, 2), (7, 11, 2))]  # fmt: skip
    network = nn.Sequential(*layers, nn.Upsample(scale_factor=16), nn.Conv3d(11, 13, 1), nn.ReLU(), nn.Conv3d(13, 3, 1))
    network.eval()
    places = find_depths(network, ["8"], (32, 32, 32))
    assert {depth: place.module for depth, place in places.items()} == {
        "encoder": "2",
        "bottleneck": "4",
        "decoder": "8",
    }
    assert places["encoder"].needs == {f"{k}.0.{kind}" for k in range(3) for kind in ("weight", "bias")}
    with torch.no_grad(), features_at(network, places, torch.tensor([[9, 20, 31]])) as found:
        network(with_coordinates(image := torch.randn(1, 1, 32, 32, 32)))
    with torch.no_grad():
        expected = network[:3](image)[0, :, 9 // 4, 20 // 4, 31 // 4]
        bottom = network[:5](image)[0, :, 0, 1, 1]
    torch.testing.assert_close(found.values["encoder"][0], expected)
    torch.testing.assert_close(found.values["bottleneck"][0], bottom)
    assert found.values["decoder"].shape == (1, 13)


def test_global_pooling_is_not_the_bottleneck():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.squeeze, self.pool = nn.Conv3d(1, 4, 2, 2), nn.Conv3d(4, 4, 1), nn.AdaptiveAvgPool3d(1)
            self.up, self.head = nn.ConvTranspose3d(4, 4, 2, 2), nn.Conv3d(4, 2, 1)

        def forward(self, image):
            below = self.down(image)
            return self.head(self.up(below * self.squeeze(self.pool(below)).sigmoid()))

    places = find_depths(Squeezed(), ["head"], (8, 8, 8))
    assert places["bottleneck"].module == "down"


def test_without_shrinking_the_middle_of_the_network():
    widths = (1, 5, 5, 5, 5, 5, 5, 5, 3)
    keys = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    network = MeshNet([dict(zip(keys, (a, b, 3, 1, 1, 1), strict=True)) for a, b in pairwise(widths)])
    places = places_of(network, (16, 16, 16))
    # each convolution is followed by its activation; the features are what the next convolution takes
    assert [(place.module, place.of_input) for place in places.values()] == [
        ("model.3", False),
        ("model.7", False),
        ("model.14", True),
    ]
    assert len(places["bottleneck"].needs) == 2 * 4


def test_a_module_that_runs_twice():
    shared = nn.Conv3d(2, 2, 1)
    network = nn.Sequential(nn.Conv3d(1, 2, 1), shared, nn.Sigmoid(), shared, nn.Sigmoid(), nn.Conv3d(2, 2, 1)).eval()
    places = find_depths(network, ["5"], (4, 4, 4))
    image = torch.randn(1, 1, 4, 4, 4)
    with torch.no_grad(), features_at(network, places, torch.tensor([[1, 2, 3]])) as found:
        network(with_coordinates(image))
        torch.testing.assert_close(found.values["decoder"][0], network[:5](image)[0, :, 1, 2, 3])


def test_the_head_on_the_decoder_s_features_gives_the_logits():
    zoo = Zoo("segresnet")
    network = zoo.build(1, 3)
    places = places_of(network, zoo.size)
    voxels = torch.tensor([[0, 1, 2], [7, 6, 5]])
    with torch.no_grad(), features_at(network, places, voxels) as found:
        logits = network(with_coordinates(zoo.image(1)))
    head = network.get_submodule("conv_final.2.conv")
    expected = found.values["decoder"] @ head.weight.flatten(1).T + head.bias
    torch.testing.assert_close(logits[0][:, [0, 7], [1, 6], [2, 5]].T, expected)


class Places(nn.Module):
    """Gives the place of each voxel in its window as features, and the image."""

    def __init__(self):
        super().__init__()
        self.keep, self.head = nn.Identity(), nn.Conv3d(4, 2, 1)

    def forward(self, image):
        axes = torch.meshgrid(*(torch.arange(edge).float() for edge in image.shape[2:]), indexing="ij")
        where = torch.stack(axes)[None].expand(len(image), -1, -1, -1, -1)
        return self.head(self.keep(torch.cat([image, where], 1)))


@pytest.mark.parametrize("shape", [(9, 13, 8), (5, 13, 4), (1, 2, 3)])
@pytest.mark.parametrize("inferer", [SlidingWindowInferer([6, 6, 6], sw_batch_size=3, overlap=0.5), SimpleInferer()])
def test_a_voxel_is_taken_from_the_window_in_whose_middle_it_is(shape, inferer):
    network = Places()
    image = torch.randn(1, 1, *shape)
    voxels = torch.stack([axis.flatten() for axis in torch.meshgrid(*map(torch.arange, shape), indexing="ij")], 1)
    places = find_depths(network, ["head"], (6, 6, 6))
    with torch.no_grad(), features_at(network, {"decoder": places["decoder"]}, voxels) as found:
        inferer(with_coordinates(image), network)
    values = found.values["decoder"]
    torch.testing.assert_close(values[:, 0], image.flatten())
    if isinstance(inferer, SimpleInferer):
        torch.testing.assert_close(values[:, 1:], voxels.float())
    elif shape == (9, 13, 8):
        # windows start at 0 and 3; at 0, 3, 6 and 7; at 0 and 2
        starts = ((0, 3), (0, 3, 6, 7), (0, 2))
        for voxel, inside in zip(voxels.tolist(), values[:, 1:].tolist(), strict=True):
            distance = [min(max(abs(v - s - 2.5) for v, s in zip(voxel, start, strict=True)) for start in
                            [(a, b, c) for a in starts[0] for b in starts[1] for c in starts[2]]
                            if all(0 <= v - s < 6 for v, s in zip(voxel, start, strict=True)))]  # fmt: skip
            assert max(abs(place - 2.5) for place in inside) == distance[0]


def test_cells_of_a_coarser_grid():
    found = VoxelFeatures(torch.tensor([[0, 3, 5], [4, 2, 5], [9, 0, 0]]))
    cells = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    found.add((6, 4, 6), torch.tensor([[0, 0, 0]]), {"bottleneck": cells})
    # the last voxel is in no window
    assert found.values["bottleneck"].flatten().tolist() == [3, 7, 0]
