"""Class-wise means of the deepest layer."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool3d, conv3d

from riskft.label_next.features import FeatureMeans


class Hourglass(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv3d(1, 3, 2, 2)
        self.up = nn.ConvTranspose3d(3, 3, 2, 2)
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, image):
        return self.head(self.up(self.down(image)))


def test_means_of_the_deepest_layer_by_class_over_all_windows():
    torch.manual_seed(0)
    network, images = Hourglass(), torch.randn(4, 1, 4, 4, 4)
    means = FeatureMeans()
    with means.watching(network, ["head"]):
        for batch in images.split(2):
            means.add(network(batch).softmax(1))
    share = avg_pool3d(network(images).softmax(1), 2).double()
    features = conv3d(images, network.down.weight, network.down.bias, stride=2).double()
    expected = [(share[:, k, None] * features).sum((0, 2, 3, 4)) / share[:, k].sum() for k in range(2)]
    np.testing.assert_allclose(means.vector(), torch.cat(expected).detach(), rtol=1e-6)
    assert not network.down._forward_hooks


def test_without_a_lower_resolution_the_layer_before_the_head():
    network = nn.Sequential(nn.Conv3d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv3d(5, 2, 1))
    means = FeatureMeans()
    with means.watching(network, ["2"]):
        network(torch.ones(1, 1, 4, 4, 4))
    means.add(torch.tensor([1.0, 0.0])[None, :, None, None, None].expand(1, 2, 4, 4, 4))
    vector = means.vector()
    assert vector.shape == (10,)
    np.testing.assert_array_equal(vector[:5], vector[5:])  # the second class has no mass


def test_a_network_that_is_only_a_head_has_features_too():
    network = nn.Conv3d(1, 2, 1)
    means = FeatureMeans()
    with means.watching(network, [""]):
        means.add(network(torch.ones(1, 1, 2, 2, 2)).softmax(1))
    assert means.vector().shape == (4,)
