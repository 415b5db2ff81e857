"""Networks with parametrised layers, own kinds of layers and other number types, as sources."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from riskft.errors import InputError
from riskft.source.classes import with_classes
from riskft.source.input_channels import inverted_network
from riskft.source.load import load_source
from riskft.source.parametrizations import plain
from riskft.source.source import Source
from riskft.training.module import RiskModule

SIZE = (8, 8, 8)


class Window:
    roi_size = SIZE

    def __call__(self, image, network):
        return network(image)


class Net(nn.Module):
    def __init__(self, norm=None, groups=1) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 6, 3, padding=1)
        self.head = nn.Conv3d(6, 2, 1, groups=groups)
        if norm is not None:
            norm(self.stem)
            norm(self.head)

    def forward(self, image):
        return self.head(self.stem(image).relu())


def evaluated(network, channels=1):
    with torch.no_grad():
        return network.eval()(torch.linspace(-1, 1, 512).reshape(1, 1, *SIZE).expand(1, channels, *SIZE))


NORMS = [parametrizations.weight_norm, parametrizations.spectral_norm]


@pytest.mark.parametrize("norm", NORMS)
def test_parametrised_layers_become_plain_ones_of_the_same_values(norm):
    network = Net(norm)
    expected = evaluated(network)
    found = plain(network)
    assert {*found.state_dict()} == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    assert type(found.stem) is nn.Conv3d
    torch.testing.assert_close(evaluated(found), expected)
    torch.testing.assert_close(evaluated(network), expected)  # it and its copies are as they were
    torch.testing.assert_close(evaluated(plain(network)), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_parametrised_source_is_adapted_and_its_head_mixed(norm, channels, classes, tmp_path):
    trained = Net(norm)
    logits = evaluated(trained)
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    source = Source(Net(norm), str(tmp_path / "net.pt"))
    module = RiskModule(source, ["background", "a", "b"][:classes], channels, inferer=Window(), head_init="leep")
    loaded = load_source(source, channels, SIZE)
    torch.testing.assert_close(evaluated(loaded.network, channels), logits, atol=1e-5, rtol=1e-5)
    joint = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[:classes]  # exchanged, and their mean
    module.start_from(loaded, joint)
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])[:classes]
    expected = torch.einsum("yk,bkijl->byijl", rows, logits)
    torch.testing.assert_close(evaluated(module.network, channels), expected, atol=1e-5, rtol=1e-5)
    assert not any(status == "new" for _, _, status in module.adaptation.rows)


def test_a_run_of_a_parametrised_network_is_a_source_too(tmp_path):
    """What riskft writes has plain layers, and the architecture is given as before."""
    module = RiskModule(Source(Net(NORMS[0])), ["background", "a", "b"], 2, inferer=Window())
    own = {"class_names": ["background", "a", "b"], "in_channels": 2}
    torch.save({"state_dict": module.state_dict(), "riskft": own}, tmp_path / "best.ckpt")
    loaded = load_source(Source(Net(NORMS[0]), str(tmp_path / "best.ckpt")), 2, SIZE)
    torch.testing.assert_close(evaluated(loaded.network, 2), evaluated(module.network, 2))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("old", "new"), [(nn.utils.weight_norm, NORMS[0]), (nn.utils.spectral_norm, NORMS[1])])
def test_files_with_the_old_names_of_these_norms(old, new, tmp_path):
    trained = Net(old)
    expected = evaluated(trained)
    torch.save({"state_dict": {f"net.{key}": value for key, value in trained.state_dict().items()}}, tmp_path / "a.pt")
    loaded = load_source(Source(Net(new), str(tmp_path / "a.pt")), 1, SIZE)
    torch.testing.assert_close(evaluated(loaded.network), expected)


def test_the_negative_of_a_parametrised_first_convolution(tmp_path):
    network = plain(Net(NORMS[0]))
    negative, names = inverted_network(network, SIZE)
    assert names == ["stem"]
    image = torch.randn(1, 1, *SIZE)
    torch.testing.assert_close(negative(image), network(-image))


def test_a_network_in_double_precision(tmp_path):
    trained = Net().double()
    torch.save(trained.state_dict(), tmp_path / "net.pt")
    loaded = load_source(Source(Net().double(), str(tmp_path / "net.pt")), 1, SIZE)
    assert evaluated(loaded.network).dtype == torch.float32
    torch.testing.assert_close(evaluated(loaded.network), evaluated(trained.float()))


class Pointwise(nn.Conv3d):
    """A layer with a constructor of its own."""

    def __init__(self, channels_in, channels_out) -> None:
        super().__init__(channels_in, channels_out, 1)


def test_a_head_of_a_kind_that_is_built_in_another_way():
    network = Net()
    network.head = Pointwise(6, 2)
    new, names = with_classes(network, 5, SIZE)
    assert names == ["head"]
    assert (type(new.head), new.head.out_channels, evaluated(new).shape) == (Pointwise, 5, (1, 5, *SIZE))
    assert network.head.weight.shape == (2, 6, 1, 1, 1)


@pytest.mark.parametrize("classes", [2, 4, 3])
def test_a_grouped_head_is_refused(classes):
    with pytest.raises(InputError, match="The head 'head' of Net is a grouped convolution"):
        with_classes(Net(groups=2), classes, SIZE)


def test_quantised_weights_are_refused(tmp_path):
    torch.save({key: (100 * value).to(torch.int8) for key, value in Net().state_dict().items()}, tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"'stem\.weight' holds int8 numbers, expected floating-point ones"):
        load_source(Source(Net(), str(tmp_path / "net.pt")), 1, SIZE)
