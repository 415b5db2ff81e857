"""Tiny networks of the kinds that users bring."""

from collections.abc import Callable

import pytest
import torch
from monai.networks import nets
from torch import nn

DYN = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]}
UNET = {"channels": (4, 8), "strides": (2,)}

# name: how to build it from (in_channels, out_channels), the edge that it runs on, and its head
NETWORKS: dict[str, tuple[Callable[[int, int], nn.Module], int, list[str]]] = {
    "unet": (lambda c, k: nets.UNet(3, c, k, **UNET), 8, ["model.2.conv"]),
    "unet_res_instance": (
        lambda c, k: nets.UNet(3, c, k, **UNET, num_res_units=2),
        8,
        ["model.2.0.conv", "model.2.1.conv.unit0.conv", "model.2.0.adn.N"],
    ),
    "unet_res_batch": (
        lambda c, k: nets.UNet(3, c, k, **UNET, num_res_units=2, norm="batch"),
        8,
        ["model.2.0.conv", "model.2.1.conv.unit0.conv", "model.2.0.adn.N"],
    ),
    "dynunet": (lambda c, k: nets.DynUNet(3, c, k, **DYN), 16, ["output_block.conv.conv"]),
    "dynunet_deep": (
        lambda c, k: nets.DynUNet(3, c, k, **DYN, deep_supervision=True, deep_supr_num=1),
        16,
        ["deep_supervision_heads.0.conv.conv", "output_block.conv.conv"],
    ),
    "segresnet": (
        lambda c, k: nets.SegResNet(3, 8, c, k, blocks_down=(1, 1), blocks_up=(1,)),
        8,
        ["conv_final.2.conv"],
    ),
    "basicunet": (lambda c, k: nets.BasicUNet(3, c, k, features=(4, 4, 4, 4, 8, 4)), 32, ["final_conv"]),
    "attentionunet": (lambda c, k: nets.AttentionUnet(3, c, k, (4, 8), (2,)), 8, ["model.2.conv"]),
}


class Zoo:
    """Builds a network of the list, with random running statistics, and runs it."""

    def __init__(self, name: str) -> None:
        self.builder, edge, self.head = NETWORKS[name]
        self.size = (edge, edge, edge)

    def build(self, channels: int, classes: int, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        network = self.builder(channels, classes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
        return network.eval()

    def image(self, channels: int, seed: int = 1) -> torch.Tensor:
        return torch.randn(1, channels, *self.size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=NETWORKS)
def zoo(request):
    return Zoo(request.param)


@pytest.fixture(params=["unet_res_instance", "unet_res_batch"])
def residual(request):
    return Zoo(request.param)


@pytest.fixture(params=["unet", "dynunet", "segresnet", "basicunet", "attentionunet"])
def single(request):
    """Networks whose head is one convolution."""
    return Zoo(request.param)
