"""What a voxel's weight does: the measures of experiments/why, against numbers by hand."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

PATH = Path(__file__).resolve().parents[2] / "experiments/why/measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("measure", PATH)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_errors_are_counted_by_kind_and_place_with_what_became_of_them(measure):
    target = torch.tensor([0, 0, 1, 1, 2, 2, 0])
    plain_ = torch.tensor([1, 0, 0, 1, 1, 2, 0])  # false alarm, -, miss, -, other class, -, -
    weighted = torch.tensor([0, 0, 0, 2, 1, 2, 2])  # mended, -, still, new other class, still, -, new false alarm
    border = torch.tensor([True, False, True, True, False, False, False])
    found = measure.changes(target, plain_, weighted, border)
    assert {key: counts for key, counts in found.items() if any(counts)} == {
        ("false alarm", "at the border"): (1, 1, 0),
        ("false alarm", "elsewhere"): (0, 0, 1),
        ("miss", "at the border"): (1, 0, 0),
        ("other class", "at the border"): (0, 0, 1),
        ("other class", "elsewhere"): (1, 0, 0),
    }
    kinds = measure.error_kinds(target, plain_)
    assert torch.equal(torch.stack(list(kinds.values())).sum(0).bool(), plain_ != target)


def test_the_gradient_s_size_is_that_of_autograd_and_lies_where_it_is_said_to(measure):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    target, weight = torch.randint(0, 3, (2, 4, 5, 6)), torch.rand(2, 4, 5, 6) + 0.5
    border = torch.rand(2, 4, 5, 6) > 0.5
    place = measure.places(logits.detach(), target, border)
    wrong = logits.argmax(1) != target
    for index, where in enumerate((~wrong & ~border, ~wrong & border, wrong & border, wrong & ~border)):
        assert torch.equal(place == index, where), measure.PLACES[index]
    loss = (nn.functional.cross_entropy(logits, target, reduction="none") * weight).sum()
    size = torch.autograd.grad(loss, logits)[0].abs().sum(1)
    expected = [float(size[place == index].sum()) for index in range(4)]
    assert measure.gradient_sums(logits.detach(), target, weight, place).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_push_to_background_balances_false_alarms_and_misses(measure):
    # probabilities of the background 0.8, 0.3; the first voxel is foreground (a miss), the second background
    logits = torch.tensor([[0.8, 0.3], [0.2, 0.7]]).log().view(1, 2, 2, 1, 1)
    target = torch.tensor([1, 0]).view(1, 2, 1, 1)
    assert measure.push_to_background(logits, target, None) == pytest.approx((-0.8 + 0.7, 0.8 + 0.7))
    weight = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    assert measure.push_to_background(logits, target, weight) == pytest.approx((-0.8 + 2.1, 0.8 + 2.1))


def test_parameter_gradients_and_their_angle(measure):
    network = nn.Linear(2, 1, bias=False)
    image = torch.tensor([[3.0, 4.0]])
    loss = network(image).sum()
    first = measure.parameter_gradient(loss, network)
    assert first.tolist() == [3.0, 4.0]
    assert measure.parameter_gradient(2 * loss, network).tolist() == [6.0, 8.0]
    assert measure.cosine(first, torch.tensor([4.0, -3.0])) == pytest.approx(0)
    assert measure.cosine(first, torch.tensor([-3.0, -4.0])) == pytest.approx(-1)


def test_correlation_is_spearman_s_inside_each_class(measure):
    first = torch.tensor([1.0, 2.0, 3.0, 30.0, 20.0, 10.0, 10.0, 5.0])
    second = torch.tensor([1.0, 3.0, 2.0, 1.0, 2.0, 5.0, 3.0, 5.0])
    classes = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2])  # class 2 has one voxel: no correlation
    expected = [spearmanr(first[classes == k], second[classes == k]).statistic for k in (0, 1)]
    assert measure.correlation_in_class(first, second, classes) == pytest.approx(sum(expected) / 2)
    assert math.isnan(measure.correlation_in_class(first, torch.ones(8), classes))
