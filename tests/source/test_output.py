"""How output channels become states."""

import pytest
import torch

from riskft.errors import InputError
from riskft.risk.leep import LeepConditional, hardness
from riskft.source.output import SigmoidOutput, SoftmaxOutput


def logit(p):
    return torch.logit(torch.tensor(p, dtype=torch.float64))


def test_one_sigmoid_is_a_softmax_of_two():
    logits = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64)
    pair = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(SigmoidOutput().states(logits), SoftmaxOutput().states(pair))


def test_states_are_the_sets_of_labels_that_hold():
    # p(whole) = .9, p(core) = .2: none .1*.8, whole alone .9*.8, core alone .1*.2, both .9*.2
    logits = torch.stack([logit(0.9), logit(0.2)]).view(1, 2, 1, 1, 1)
    torch.testing.assert_close(
        SigmoidOutput().states(logits).flatten(), torch.tensor([0.08, 0.72, 0.02, 0.18], dtype=torch.float64)
    )
    assert SigmoidOutput().state_names(["whole", "core"]) == ("none", "whole", "core", "whole+core")
    assert SigmoidOutput().activity(2).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_many_labels_share_a_voxel_out():
    # p = .5, .25, .25: none .5*.75*.75 = .28125, the rest .71875 in the proportions 2:1:1
    logits = torch.stack([logit(0.5), logit(0.25), logit(0.25)]).view(1, 3, 1, 1, 1)
    expected = torch.tensor([0.28125, 0.359375, 0.1796875, 0.1796875], dtype=torch.float64)
    torch.testing.assert_close(SigmoidOutput(max_exact=2).states(logits).flatten(), expected)
    assert SigmoidOutput(max_exact=2).state_names(["a", "b", "c"]) == ("none", "a", "b", "c")


@pytest.mark.parametrize("output", [SoftmaxOutput(), SigmoidOutput(), SigmoidOutput(max_exact=1)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_states_sum_to_one_and_are_finite(output, scale):
    states = output.states(scale * torch.randn(2, 4, 3, 5, 2))
    assert states.isfinite().all()
    assert (states >= 0).all()
    torch.testing.assert_close(states.sum(1), torch.ones(2, 3, 5, 2))
    assert output.activity(4).shape == (states.shape[1], 4)
    assert len(output.state_names("abcd")) == states.shape[1]


def test_nested_regions_explain_the_classes_that_they_are_made_of():
    """Regions whole > core > enhancing tell oedema, necrosis and enhancing tumour apart without a remainder."""
    target = torch.tensor([0, 1, 2, 3] * 5).view(1, 20, 1, 1)
    regions = torch.stack([(target >= k).double() for k in (1, 2, 3)], 1)
    states = SigmoidOutput().states((regions * 2 - 1) * 40)
    metric = LeepConditional(8, 4)
    metric.update(states, target)
    assert float(hardness(states, target, metric.compute()).max()) < 1e-6
    # shares lose this: a voxel of all three regions is a third of each
    shared = SigmoidOutput(max_exact=0).states((regions * 2 - 1) * 40)
    metric = LeepConditional(4, 4)
    metric.update(shared, target)
    assert float(hardness(shared, target, metric.compute()).max()) > 0.3


def test_a_softmax_of_one_channel_is_refused_with_the_way_out():
    with pytest.raises(InputError, match=r"riskft\.Sigmoid"):
        SoftmaxOutput().states(torch.zeros(1, 1, 2, 2, 2))
