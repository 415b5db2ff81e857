"""Options at the edge of what losses take, and volumes that are one voxel thin."""

import math

import pytest
import torch

from riskft import FocalLoss, RiskWeightedLoss
from riskft.errors import InputError
from riskft.losses.distill import gated_divergence
from riskft.losses.weighted import without_channel


def test_a_gamma_of_one_is_taken_and_one_below_is_not():
    FocalLoss(gamma=1.0)
    with pytest.raises(InputError, match="at least 1"):
        FocalLoss(gamma=0.99)


@pytest.mark.parametrize(("dice", "ce"), [(-1.0, 2.0), (2.0, -1.0), (0.0, 0.0)])
def test_no_part_of_the_loss_has_a_negative_weight(dice, ce):
    with pytest.raises(InputError):
        RiskWeightedLoss(dice_weight=dice, ce_weight=ce)


def test_the_first_axis_of_a_thin_volume_is_not_its_channel():
    logits = torch.zeros(2, 3, 1, 4, 5)
    assert without_channel(torch.zeros(2, 1, 4, 5), logits, "target").shape == (2, 1, 4, 5)
    assert without_channel(torch.zeros(2, 1, 1, 4, 5), logits, "target").shape == (2, 1, 4, 5)


def test_a_sample_with_one_counted_voxel_is_not_diluted():
    target = torch.tensor([[[[0, 255, 255]]]])
    eep = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 3)
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 1, 3)  # p = 1/4, 3/4
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert gated_divergence(logits, target, eep, None, 255).item() == pytest.approx(expected, rel=1e-6)
