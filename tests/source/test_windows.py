"""Inference in parts gives what MONAI's inferer gives, and never holds the whole result."""

import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer, SlidingWindowInfererAdapt
from torch import nn

from riskft.source.windows import logits_in_parts

IMAGE = torch.randn(1, 2, 23, 13, 11, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return nn.Conv3d(2, 5, 3, padding=1).requires_grad_(False)


@pytest.mark.parametrize(
    "inferer",
    [
        SlidingWindowInferer([6, 5, 4]),
        SlidingWindowInferer([6, 5, 4], sw_batch_size=7, overlap=0.5, mode="gaussian"),
        SlidingWindowInferer([7, 5, 4], sw_batch_size=3, overlap=(0.8, 0.0, 0.3), mode="gaussian", sigma_scale=0.3),
        SlidingWindowInferer([6, 5, 4], sw_batch_size=2, overlap=0.0),
        SlidingWindowInferer([6, -1, 4], overlap=0.6),
        SlidingWindowInferer([6, 20, 16], mode="gaussian", padding_mode="replicate"),  # larger than the image
        SlidingWindowInferer([40, 5, 6], cval=3.0),
        SlidingWindowInferer([6, 5, 4], mode="gaussian", cache_roi_weight_map=True),
        SlidingWindowInferer([6, 5, 4], buffer_steps=1),  # left to MONAI
        SlidingWindowInfererAdapt([6, 5, 4]),
        SimpleInferer(),
    ],
)
def test_the_parts_equal_the_whole_to_the_last_bit(network, inferer):
    expected = inferer(IMAGE, network)
    parts = [part.clone() for part in logits_in_parts(inferer, IMAGE, network)]
    assert torch.equal(torch.cat(parts, 2), expected)


def test_outputs_in_half_precision_are_blended_as_by_monai():
    torch.manual_seed(1)
    network = nn.Conv3d(2, 3, 3, padding=1, dtype=torch.bfloat16).requires_grad_(False)
    inferer = SlidingWindowInferer([6, 5, 4], sw_batch_size=3, overlap=0.5, mode="gaussian")
    parts = [part.clone() for part in logits_in_parts(inferer, IMAGE, lambda x: network(x.bfloat16()))]
    assert torch.equal(torch.cat(parts, 2), inferer(IMAGE, lambda x: network(x.bfloat16())))


def test_a_single_window_is_returned_without_a_copy(network):
    outputs = []
    inferer = SlidingWindowInferer([23, 13, 11], mode="gaussian")
    (part,) = logits_in_parts(inferer, IMAGE, lambda image: outputs.append(network(image)) or outputs[0])
    assert part.data_ptr() == outputs[0].data_ptr()
    torch.testing.assert_close(part, inferer(IMAGE, network))


def test_planes_are_handed_out_as_soon_as_no_window_reaches_them(network):
    calls = []
    parts = logits_in_parts(
        SlidingWindowInferer([6, 13, 11], overlap=0.5), IMAGE, lambda x: calls.append(1) or network(x)
    )
    # windows at 0, 3, 6, 9, 12, 15 and 17
    assert [(part.shape[2], len(calls)) for part in parts] == [
        *((3, number) for number in range(2, 7)),
        *((2, 7), (1, 7), (5, 7)),  # in a ring of six planes
    ]
