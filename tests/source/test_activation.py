"""Networks that return probabilities: recognised, and used as such in phase 1 and in fine-tuning."""

import logging

import pytest
import torch
from torch import nn

from riskft.data.patches.batch import PatchBatch
from riskft.errors import InputError
from riskft.source.activation import ProbabilityCheck, readings
from riskft.source.load import load_source
from riskft.source.output import SigmoidOutput, SoftmaxOutput
from riskft.source.reading import logits_of
from riskft.source.source import Source
from riskft.training.module import RiskModule

SIZE = (8, 8, 8)


class Net(nn.Module):
    """Gives logits; subclasses make something of them."""

    def __init__(self, classes=2) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 6, 3, padding=1)
        self.head = nn.Conv3d(6, classes, 1)

    def logits(self, image):
        return 8 * self.head(self.stem(image).relu())

    def forward(self, image):
        return self.logits(image)


class Functional(Net):
    def forward(self, image):
        return self.logits(image).softmax(1)


class FromTheEnd(Net):
    def forward(self, image):
        return nn.functional.softmax(self.logits(image), dim=-4).clone()


class OnlyEvaluation(Net):
    def forward(self, image):
        return self.logits(image) if self.training else self.logits(image).softmax(1)


class AsModule(Net):
    def __init__(self, classes=2) -> None:
        super().__init__(classes)
        self.last = nn.Softmax(dim=1)

    def forward(self, image):
        return {"out": self.last(self.logits(image)), "loss": None}


class Sigmoids(Net):
    def forward(self, image):
        return self.logits(image).sigmoid()


class ByHand(Net):
    """A softmax that no single operation shows."""

    def forward(self, image):
        powers = (self.logits(image) - self.logits(image).amax(1, keepdim=True)).exp()
        return powers / powers.sum(1, keepdim=True)


class SigmoidByHand(Net):
    def forward(self, image):
        return 1 / (1 + (-self.logits(image)).exp())


class LogSoftmax(Net):
    def forward(self, image):
        return self.logits(image).log_softmax(1)


class OtherAxis(Net):
    def forward(self, image):
        return self.logits(image).softmax(2)


def built(kind, classes=2):
    torch.manual_seed(3)
    return kind(classes)


def states(kind, tmp_path, output=None, classes=2):
    """Returns the states that phase 1 sees of an image, and those of the logits."""
    network = built(kind, classes)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    source = Source(built(kind, classes), str(tmp_path / "net.pt"), output=output)
    loaded = load_source(source, 1, SIZE, Window())
    image = 3 * torch.randn(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat(list(loaded.predictor()(image)), 1)[None], network.eval().logits(image)


class Window:
    """An inferer of one window."""

    roi_size = SIZE

    def __call__(self, image, network):
        return network(image)


@pytest.mark.parametrize("kind", [Net, Functional, FromTheEnd, OnlyEvaluation, AsModule, LogSoftmax])
def test_phase_1_sees_the_softmax_once(kind, tmp_path):
    found, logits = states(kind, tmp_path)
    torch.testing.assert_close(found, logits.softmax(1), atol=1e-6, rtol=1e-5)


def test_a_network_that_ends_in_a_sigmoid_is_a_sigmoid_source(tmp_path):
    found, logits = states(Sigmoids, tmp_path)
    torch.testing.assert_close(found, SigmoidOutput().states(logits), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "output"), [(ByHand, SoftmaxOutput(applied=True)), (SigmoidByHand, SigmoidOutput(applied=True))]
)
def test_what_the_option_says(kind, output, tmp_path):
    found, logits = states(kind, tmp_path, output)
    torch.testing.assert_close(found, type(output)().states(logits), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [(ByHand, "SoftmaxOutput"), (SigmoidByHand, "SigmoidOutput")])
def test_probabilities_are_recognised_and_the_option_is_named(kind, name, tmp_path):
    with pytest.raises(InputError, match=r"model\.source\.network \(\w+\).* probabilities") as caught:
        states(kind, tmp_path, classes=3)
    assert f"set model.source.output.class_path to riskft.{name} and model.source.output.init_args.applied to true" in (
        str(caught.value)
    )
    found, _ = states(kind, tmp_path, SoftmaxOutput(applied=False), classes=3)  # whatever they look like
    assert found.shape[1] == 3


@pytest.mark.parametrize("kind", [Functional, AsModule, Sigmoids, OnlyEvaluation])
def test_fine_tuning_sees_the_logits(kind):
    """Head of another size included: the loss applies a softmax of its own."""
    module = RiskModule(Source(built(kind, 2)), ["background", "a", "b"], 1, inferer=Window())
    image = torch.randn(1, 1, *SIZE)
    for training in (True, False):
        module.train(training)
        expected = module.network.logits(image)
        torch.testing.assert_close(module(image).softmax(1), expected.softmax(1), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(module.infer(image).argmax(1), expected.argmax(1))
    module(image).sum().backward()
    assert module.network.head.weight.grad.abs().sum() > 0 or kind is not Sigmoids


def test_training_on_probabilities_by_hand_is_refused_at_the_first_patch():
    module = RiskModule(Source(built(ByHand, 3)), ["background", "a", "b"], 1, inferer=Window())
    batch = PatchBatch(("p",), torch.randn(1, 1, *SIZE), torch.zeros(1, 1, *SIZE), torch.ones(1))
    with pytest.raises(InputError, match="applied to true"):
        module.training_step(batch, 0)


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        (Net, None),
        (Functional, "softmax"),
        (Sigmoids, "sigmoid"),
        (LogSoftmax, None),
        (OtherAxis, None),
        (ByHand, None),
    ],
)
def test_the_last_operation_is_found(kind, activation):
    assert readings(kind(), SIZE, None).evaluation.activation == activation


def test_logits_of_probabilities_by_hand():
    p = torch.tensor([0.5, 0.25, 0.25, 0.0]).view(1, 4, 1, 1, 1)
    logits = logits_of(p, "softmax")
    torch.testing.assert_close(logits.softmax(1), p)
    q = torch.tensor([0.2, 0.5, 1.0, 0.0]).view(1, 4, 1, 1, 1)
    found = logits_of(q, "sigmoid").flatten()
    # log(1/4), log 1
    torch.testing.assert_close(found[:2], torch.tensor([-1.3862944, 0.0]))
    assert found.isfinite().all()
    torch.testing.assert_close(found.sigmoid(), q.flatten())
    assert logits_of(q, None) is q


def check(outputs, whole=True):
    found = ProbabilityCheck("net")
    found.patch(outputs)
    if whole:
        for part in outputs.split(3, dim=2):
            found.part(part)
        found.volume()


def test_half_precision_is_not_exact():
    with pytest.raises(InputError, match="sum to 1"):
        check(torch.randn(1, 20, 4, 4, 4).mul(3).softmax(1).bfloat16())


def test_a_masked_softmax_is_recognised_and_both_classes_are_named():
    inside = (torch.arange(4) < 2).view(1, 1, 4, 1, 1)
    match = r"riskft\.SigmoidOutput and .* what a softmax gives, the class is riskft\.SoftmaxOutput"
    with pytest.raises(InputError, match=match):
        check(torch.randn(1, 3, 4, 4, 4).mul(5).softmax(1) * inside)


@pytest.mark.parametrize(
    "outputs",
    [
        torch.randn(1, 3, 4, 4, 4),
        torch.tensor([0.3, 0.7]).view(1, 2, 1, 1, 1).expand(1, 2, 4, 4, 4),  # air: every voxel alike
        torch.rand(1, 2, 4, 4, 4) / 2,  # within 0..1 as an untrained network's may be
        torch.rand(1, 1, 4, 4, 4) + 0.5,
        torch.rand(1, 2, 4, 4, 4).softmax(1) + 0.01,
    ],
)
def test_logits_are_left_alone(outputs):
    check(outputs)


def test_values_within_0_and_1_are_told(caplog):
    caplog.set_level(logging.WARNING)
    check(torch.rand(1, 2, 4, 4, 4) / 2)
    assert "values from" in caplog.text
    assert "riskft.SigmoidOutput" in caplog.text


def test_only_the_first_that_is_not_constant_is_looked_at():
    found = ProbabilityCheck("net")
    probabilities = torch.randn(1, 2, 4, 4, 4).softmax(1)
    found.patch(torch.full((1, 2, 4, 4, 4), 0.5))
    with pytest.raises(InputError):
        found.patch(probabilities)
    found = ProbabilityCheck("net")
    found.patch(torch.randn(1, 2, 4, 4, 4))
    found.patch(probabilities)
