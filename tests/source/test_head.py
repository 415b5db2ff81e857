"""Starting the head from the source's through P(z|y)."""

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.classes import with_classes
from riskft.source.head import copy_head, head_rows, mixed_head
from riskft.source.output import SigmoidOutput
from riskft.source.reading import outputs_of
from riskft.source.transfer import transfer_backbone

# P(y, z) of 2 target and 3 source classes; P(z|y) = [[.6, .3, .1], [0, .25, .75]]
JOINT = torch.tensor([[0.36, 0.18, 0.06], [0.0, 0.1, 0.3]], dtype=torch.float64)
GIVEN = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.25, 0.75]])


def start(zoo, joint, source_classes=3):
    """Returns the source network and a target network started from it."""
    source = zoo.build(1, source_classes)
    target, names = with_classes(zoo.build(1, source_classes, seed=9), len(joint), zoo.size)
    transfer_backbone(target, source, names, (), "adapted", ())
    mixed_head(target, source, names, head_rows(joint, torch.eye(joint.shape[1])))
    return source, target.eval()


@torch.no_grad()
def logits(network, image):
    return outputs_of(network(image))[0]


@pytest.mark.parametrize("scale", [1.0, 1234.5])
def test_a_linear_head_gives_the_mean_of_the_source_s_logits(single, scale):
    source, target = start(single, JOINT * scale)
    image = single.image(1)
    expected = torch.einsum("yz,bzijk->byijk", GIVEN, logits(source, image))
    torch.testing.assert_close(logits(target, image), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_reproduces_the_source(zoo, dtype):
    source, target = start(zoo, torch.eye(3, dtype=dtype) / 3)
    image = zoo.image(1)
    torch.testing.assert_close(logits(target, image), logits(source, image), atol=1e-5, rtol=1e-4)


def test_a_permutation_permutes_the_source(zoo):
    source, target = start(zoo, torch.eye(3, dtype=torch.float64)[[2, 0, 1]])
    image = zoo.image(1)
    torch.testing.assert_close(logits(target, image), logits(source, image)[:, [2, 0, 1]], atol=1e-5, rtol=1e-4)


def test_a_copied_class_behaves_as_the_source_s(residual):
    """Two target classes that are one source class each, of three: a residual head too gives the source's logits."""
    source, target = start(residual, torch.tensor([[0.0, 0.0, 0.5], [0.5, 0.0, 0.0]], dtype=torch.float64))
    image = residual.image(1)
    found = logits(target, image)
    assert found.shape[1] == 2
    # the class that was left out no longer enters the residual unit
    kernel = source.get_submodule("model.2.1.conv.unit0.conv").weight
    left_out = kernel[:, 1].clone()
    kernel.data[:, 1] = 0
    torch.testing.assert_close(found, logits(source, image)[:, [2, 0]], atol=1e-5, rtol=1e-4)
    assert left_out.abs().max() > 0


def test_deep_supervision_heads_are_mixed_too():
    def build(seed):
        torch.manual_seed(seed)
        return nets.DynUNet(3, 1, 3, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8], deep_supervision=True, deep_supr_num=1)

    source = build(0)
    target, names = with_classes(build(9), 2, (16, 16, 16))
    transfer_backbone(target, source, names, (), "adapted", ())
    mixed_head(target, source, names, head_rows(JOINT, torch.eye(JOINT.shape[1])))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        old, new = (outputs_of(network.train()(image)) for network in (source, target))
    assert len(new) == len(old) == 2
    for before, after in zip(old, new, strict=True):
        torch.testing.assert_close(
            after, torch.einsum("yz,bzijk->byijk", GIVEN, before), atol=1e-5, rtol=1e-4
        )  # fmt: skip


def test_a_class_without_mass_gets_the_mean_over_the_source_s_prior(single):
    joint = torch.tensor([[0.3, 0.1, 0.1], [0.0, 0.0, 0.0], [0.1, 0.1, 0.3]], dtype=torch.float64)
    source, target = start(single, joint)
    image = single.image(1)
    found = logits(target, image)[:, 1]
    # P(z) = .4, .2, .4
    expected = torch.einsum("z,bzijk->bijk", torch.tensor([0.4, 0.2, 0.4]), logits(source, image))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("source_classes", "target_classes"), [(3, 4), (4, 4), (4, 3), (8, 4)])
def test_as_many_features_as_classes(source_classes, target_classes):
    """The last convolution takes 4 features, which are no classes."""

    def build(seed, classes):
        torch.manual_seed(seed)
        return nets.BasicUNet(3, 1, classes, features=(4, 4, 4, 4, 8, 4)).eval()

    source = build(0, source_classes)
    target, names = with_classes(build(9, source_classes), target_classes, (32, 32, 32))
    transfer_backbone(target, source, names, (), "adapted", ())
    joint = torch.rand(target_classes, source_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mixed_head(target, source, names, head_rows(joint, torch.eye(joint.shape[1])))
    image = torch.randn(1, 1, 32, 32, 32)
    given = (joint / joint.sum(1, keepdim=True)).float()
    expected = torch.einsum("yz,bzijk->byijk", given, logits(source, image))
    torch.testing.assert_close(logits(target.eval(), image), expected, atol=1e-5, rtol=1e-4)


def test_copy_head(zoo):
    source = zoo.build(1, 3)
    target, names = with_classes(zoo.build(1, 3, seed=9), 3, zoo.size)
    transfer_backbone(target, source, names, (), "loaded", ())
    image = zoo.image(1)
    assert not torch.allclose(logits(target, image), logits(source, image), atol=1e-3)
    copy_head(target, source, names)
    torch.testing.assert_close(logits(target, image), logits(source, image))


def test_copy_head_needs_the_same_number_of_classes(zoo):
    source = zoo.build(1, 3)
    target, names = with_classes(source, 2, zoo.size)
    with pytest.raises(InputError, match="different numbers of classes: use 'leep' or 'random'"):
        copy_head(target, source, names)


def test_a_sigmoid_head_of_regions_becomes_a_softmax_of_their_rings(single):
    """Regions whole > core as sigmoids; classes background, oedema (whole alone) and core (both)."""
    source = single.build(1, 2)
    target, names = with_classes(single.build(1, 2, seed=9), 3, single.size)
    transfer_backbone(target, source, names, (), "adapted", ())
    # the states are none, whole, core, whole+core; each class is one of them
    joint = torch.tensor([[0.7, 0.0, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1]])
    rows = head_rows(joint, SigmoidOutput().activity(2))
    assert rows.tolist() == [[0, 0], [1, 0], [1, 1]]
    mixed_head(target, source, names, rows)
    image = single.image(1)
    states = SigmoidOutput().states(logits(source, image))[:, [0, 1, 3]]
    expected = states / states.sum(1, keepdim=True)  # the core without the whole is no class
    torch.testing.assert_close(logits(target.eval(), image).softmax(1), expected, atol=1e-5, rtol=1e-4)


def test_parallel_heads_are_not_taken_for_a_chain():
    """Deep supervision with as many features as classes: each head mixes its own rows, and no input channels."""

    class Parallel(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv3d(1, 3, 3, padding=1)
            self.heads = nn.ModuleList(nn.Conv3d(3, 3, 1) for _ in range(2))

        def forward(self, image):
            features = self.stem(image)
            return [head(features) for head in self.heads]

    source, target = Parallel(), Parallel()
    target.stem.load_state_dict(source.stem.state_dict())
    rows = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]], dtype=torch.float64)
    mixed_head(target, source, ["heads.0", "heads.1"], rows, parallel=["heads.0", "heads.1"])
    image = torch.randn(1, 1, 4, 5, 3)
    for found, before in zip(target(image), source(image), strict=True):
        torch.testing.assert_close(found, torch.einsum("yz,bzijk->byijk", rows.float(), before))
