"""The fused terms of the loss: equal to the plain form in value and gradient, in little memory."""

import ctypes
import os
from pathlib import Path

import plain
import pytest
import torch
from torch.autograd import gradcheck

from riskft.losses import fused
from riskft.losses.fused import loss_terms
from riskft.losses.hard_voxels import FocalLoss, TopKLoss
from riskft.losses.weighted import RiskWeightedLoss

IGNORE = 255


def batch(classes=3, spatial=(7, 6, 5), dtype=torch.float64, seed=0, label=torch.uint8, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, *spatial, generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (2, *spatial), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = IGNORE
    return logits.to(dtype), target.to(label), 3 * torch.rand(2, *spatial, generator=generator)


def with_gradient(function, logits):
    logits = logits.detach().requires_grad_(True)
    value = function(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@pytest.fixture(params=[1 << 18, 50], ids=["one block", "many blocks"], autouse=True)
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(fused, "_ON_CPU", request.param)


# -- equal to the plain form ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize(("dice", "ce"), [(1.0, 1.0), (0.0, 2.0), (3.0, 0.0)])
def test_it_equals_the_plain_form(weighted, foreground, dice, ce):
    loss = RiskWeightedLoss("foreground" if foreground else "voxels", dice_weight=dice, ce_weight=ce)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        logits, target, weight = batch(dtype=dtype)
        weight = weight if weighted else None
        value, gradient = with_gradient(lambda x: loss(x, target, weight), logits)  # noqa: B023
        expected = with_gradient(
            lambda x: plain.loss(x, target, weight, foreground=foreground, dice=dice, ce=ce),  # noqa: B023
            logits,
        )
        assert value.dtype == gradient.dtype == dtype
        torch.testing.assert_close((value, gradient), expected, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("classes", [1, 2, 9])
@pytest.mark.parametrize("spatial", [(40,), (9, 8), (5, 4, 3)])
def test_any_number_of_classes_and_axes(classes, spatial):
    logits, target, weight = batch(classes, spatial)
    value, gradient = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    expected = with_gradient(lambda x: plain.loss(x, target, weight), logits)
    torch.testing.assert_close((value, gradient), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("label", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_any_type_of_label(label):
    for dtype in (torch.float32, torch.float64):
        logits, target, weight = batch(label=label, dtype=dtype)
        before = target.clone()
        found = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)  # noqa: B023
        assert torch.equal(target, before)
        torch.testing.assert_close(found, with_gradient(lambda x: plain.loss(x, target, weight), logits))  # noqa: B023


def test_the_gradients_of_coarser_outputs():
    logits, target, weight = batch(spatial=(8, 6, 4), dtype=torch.float32)
    coarse, _, _ = batch(spatial=(4, 3, 2), dtype=torch.float32, seed=1)
    small = torch.nn.functional.interpolate(target[:, None].float(), size=(4, 3, 2), mode="nearest-exact")[:, 0]
    mean = torch.nn.functional.avg_pool3d(weight, 2)
    _, fine = with_gradient(lambda x: RiskWeightedLoss()([x, coarse], target, weight), logits)
    _, found = with_gradient(lambda x: RiskWeightedLoss()([logits, x], target, weight), coarse)
    _, expected = with_gradient(lambda x: plain.loss(x, target, weight) / 1.5, logits)
    torch.testing.assert_close(fine, expected)
    _, expected = with_gradient(lambda x: plain.loss(x, small, mean) / 3, coarse)
    torch.testing.assert_close(found, expected)


def test_a_sample_with_nothing_but_ignored_voxels():
    logits, target, weight = batch()
    target[1] = IGNORE
    value, gradient = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    expected = with_gradient(lambda x: plain.loss(x, target, weight), logits)
    torch.testing.assert_close((value, gradient), expected, rtol=1e-9, atol=1e-12)
    assert (gradient[1] == 0).all()


def memory_orders(logits):
    yield "channels last", logits.contiguous(memory_format=torch.channels_last_3d)
    yield "transposed", logits.transpose(2, 4).contiguous().transpose(2, 4)
    yield "part of a larger one", torch.cat([logits, logits], 1)[:, : logits.shape[1]]
    yield "every second", logits.repeat_interleave(2, 4)[..., ::2]
    yield "one for all voxels", logits[..., :1].expand_as(logits)


def test_any_memory_order():
    logits, target, weight = batch()
    for name, other in memory_orders(logits):
        assert not other.is_contiguous(), name
        value, gradient = with_gradient(lambda x: RiskWeightedLoss()(x, target.mT, weight.mT), other.mT)
        expected = with_gradient(lambda x: plain.loss(x, target.mT, weight.mT), other.mT.contiguous())
        torch.testing.assert_close((value, gradient), expected, rtol=1e-9, atol=1e-12, msg=name)


def test_the_gradient_has_the_logits_memory_order():
    logits, target, _ = batch()
    for dtype in (torch.float32, torch.bfloat16):
        last = logits.to(dtype).contiguous(memory_format=torch.channels_last_3d)
        _, gradient = with_gradient(lambda x: RiskWeightedLoss()(x, target), last)
        assert gradient.stride() == last.stride()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_single_precision_of_the_rounded_logits(dtype):
    logits, target, weight = batch(dtype=dtype)
    value, gradient = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    expected, wide = with_gradient(lambda x: plain.loss(x, target, weight), logits.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, wide.to(dtype))


def test_a_constant_added_to_the_logits_changes_nothing():
    logits, target, _ = batch(dtype=torch.float32)
    logits += 10_000
    found = loss_terms(logits, target, IGNORE).entropy
    torch.testing.assert_close(found, plain.cross_entropy(logits, target, IGNORE), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [FocalLoss, TopKLoss, RiskWeightedLoss])
def test_numerical_gradients(make):
    logits, target, weight = batch(spatial=(3, 2, 2))
    coarse = torch.randn(2, 3, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = (logits.requires_grad_(True), coarse.requires_grad_(True))
    assert gradcheck(lambda *levels: make()(levels, target, weight), inputs)


def test_each_term_alone_has_its_numerical_gradient():
    logits, target, _ = batch(spatial=(3, 2))
    for name in ("entropy", "mass", "overlap"):
        assert gradcheck(lambda x: getattr(loss_terms(x, target, IGNORE), name), logits.requires_grad_(True))  # noqa: B023
    assert not loss_terms(logits, target, IGNORE).counts.requires_grad


# -- autograd and the rest of torch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward_twice_gives_the_same_gradient(dtype):
    logits, target, weight = batch(dtype=dtype)
    logits.requires_grad_(True)
    value = RiskWeightedLoss()(logits, target, weight)
    first, second = (torch.autograd.grad(value, logits, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.data_ptr() != second.data_ptr()


def test_second_derivatives_are_refused():
    logits, target, _ = batch()
    logits.requires_grad_(True)
    (gradient,) = torch.autograd.grad(RiskWeightedLoss()(logits, target), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_logits_are_not_changed():
    logits, target, _ = batch(dtype=torch.float32)
    before = logits.clone()
    with_gradient(lambda x: RiskWeightedLoss()(x, target), logits)
    assert torch.equal(logits, before)


def test_under_autocast_nothing_is_rounded():
    logits, target, weight = batch(dtype=torch.float32)
    expected = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("small_blocks", [1 << 18], indirect=True)
def test_compiled_it_is_the_same(small_blocks):
    logits, target, weight = batch(dtype=torch.float32)
    expected = with_gradient(lambda x: RiskWeightedLoss()(x, target, weight), logits)
    compiled = torch.compile(RiskWeightedLoss(), backend="aot_eager")  # with graph breaks
    torch.testing.assert_close(with_gradient(lambda x: compiled(x, target, weight), logits), expected)


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_a_label_that_is_neither_a_class_nor_ignored(wrong):
    logits, target, _ = batch(label=torch.int64)
    target[1, 2, 3, 4] = wrong
    with pytest.raises(RuntimeError, match="neither a class"):
        RiskWeightedLoss()(logits, target)


def peak(function):
    """Returns the peak memory in bytes of a second call in a forked process, above that before it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:

        def status(name):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

        torch.set_num_threads(1)
        function()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        function()
        os.write(write, str(status("VmHWM") - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read, 100))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the memory of Linux")
@pytest.mark.parametrize("small_blocks", [1 << 16], indirect=True)
def test_it_needs_one_more_volume_of_probabilities(small_blocks):
    logits, target, weight = batch(4, (64, 64, 64), torch.float32)
    logits.requires_grad_(True)
    volume = logits.numel() * 4

    def step():
        torch.autograd.grad(RiskWeightedLoss()(logits, target, weight), logits)

    # probabilities, which become the gradient; entropies, their weighted values and gradients; blocks
    assert peak(step) < 1.75 * volume + 3e6  # 1.6e6 are the blocks
