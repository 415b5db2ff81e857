"""Training that starts from a part of the source: which weights are the source's, and what L2-SP pulls."""

import pytest
import torch
from lightning.pytorch import Callback
from monai.networks.nets import UNet
from test_module import CLASSES, loader, module, state, trainer

from riskft.errors import InputError
from riskft.source.source import Source
from riskft.training.l2sp import L2SP
from riskft.training.module import RiskModule


def network():
    return UNet(3, 1, 3, (4, 8, 8), (2, 2))


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(3)
    content = {"state_dict": network().state_dict(), "riskft": {"class_names": CLASSES, "in_channels": 1}}
    torch.save(content, tmp_path / "s.ckpt")
    return str(tmp_path / "s.ckpt")


def part(source, load, **options):
    options = {"class_names": CLASSES, "in_channels": 1, "inferer": module().inferer, **options}
    torch.manual_seed(0)
    return RiskModule(Source(network(), source, load=load), **options)


FRESH = {
    "network": (),
    "encoder": ("model.1.submodule.2.", "model.2."),
    "not_first": ("model.0.",),
}


@pytest.mark.parametrize("load", FRESH)
def test_which_weights_are_the_source_s(source, load):
    made = part(source, load)
    before = state(made.network)
    made.start_from(made.load_source(), None)
    old = torch.load(source, weights_only=True)["state_dict"]
    for key, value in made.network.state_dict().items():
        expected = before if key.startswith(FRESH[load]) else old
        assert torch.equal(value, expected[key]), key
        assert not torch.equal(before[key], old[key]) or key.endswith("adn.A.weight"), key
    assert {name for name, _, status in made.adaptation.rows if status == "new"} == {
        key for key in before if key.startswith(FRESH[load])
    }


def test_a_head_from_the_source_does_not_fit_a_fresh_decoder(source):
    with pytest.raises(InputError, match=r"model\.head_init is copy, but model\.source\.load is encoder"):
        part(source, "encoder", head_init="copy")


def test_fresh_weights_are_not_pulled_to_where_they_started(source, tmp_path):
    held = L2SP(1.0)

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.pulled = set(held.state_dict()["source"])

    look = Look()
    trainer(tmp_path, callbacks=[held, look]).fit(part(source, "encoder"), loader())
    names = {name for name, _ in network().named_parameters()}
    assert look.pulled == {name for name in names if not name.startswith(FRESH["encoder"])}
