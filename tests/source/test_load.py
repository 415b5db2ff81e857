"""From options and file to the frozen source network."""

import copy
from pathlib import Path

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.checkpoint import Checkpoint
from riskft.source.load import fill, load_source
from riskft.source.output import SigmoidOutput
from riskft.source.reading import outputs_of
from riskft.source.source import Source
from riskft.source.trace import trace

SIZE = (8, 8, 8)


def unet(classes=3, channels=1, **options):
    return nets.UNet(3, channels, classes, channels=(4, 8), strides=(2,), **options)


def saved(path, content):
    torch.save(content, path)
    return str(path)


def test_frozen_in_evaluation_mode_and_the_architecture_left_alone(tmp_path):
    trained, architecture = unet(), unet()
    before = copy.deepcopy(architecture.state_dict())
    source = Source(architecture, saved(tmp_path / "net.pt", {**trained.state_dict(), "aux": torch.ones(1)}))
    loaded = load_source(source, 1, SIZE)
    assert not any(module.training for module in loaded.network.modules())
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    assert (loaded.class_names, loaded.adapted, loaded.unused) == (None, (), ("aux",))
    assert all(torch.equal(value, before[key]) for key, value in architecture.state_dict().items())
    assert all(parameter.requires_grad for parameter in architecture.parameters())
    image = torch.randn(1, 1, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(image), trained.eval()(image))


@pytest.mark.parametrize("options", [{}, {"num_res_units": 2}])
def test_classes_and_channels_come_from_a_riskft_checkpoint(tmp_path, options):
    trained = unet(classes=4, channels=2, **options)
    content = {
        "state_dict": {f"network.{key}": value for key, value in trained.state_dict().items()},
        "riskft": {"class_names": ["background", "a", "b", "c"], "in_channels": 2},
    }
    source = Source(unet(classes=3, channels=1, **options), saved(tmp_path / "best.ckpt", content))
    loaded = load_source(source, 3, SIZE)
    assert trace(loaded.network, SIZE).channels == [4]
    assert loaded.class_names == ("background", "a", "b", "c")
    assert set(loaded.adapted) == ({"model.0.residual", "model.0.conv.unit0.conv"} if options else {"model.0.conv"})
    image = torch.randn(1, 1, *SIZE)
    with torch.no_grad():
        expected = trained.eval()(image.expand(1, 2, *SIZE))
        torch.testing.assert_close(loaded.network(image.expand(1, 3, *SIZE)), expected, atol=1e-5, rtol=1e-4)


def test_phase_1_needs_a_foreign_checkpoint_whole_and_plain_fine_tuning_does_not(tmp_path, caplog):
    source = Source(unet(classes=3), saved(tmp_path / "net.pt", unet(classes=4).state_dict()))
    with pytest.raises(InputError, match=r"net\.pt: fits model\.source\.network \(UNet\) except") as caught:
        load_source(source, 1, SIZE)
    assert "the file's head has 4 output channels, the network 3" in str(caught.value)
    source.min_loaded = 0.4
    loaded = load_source(source, 1, SIZE, whole=False)
    assert loaded.missing == ("model.2.conv.weight", "model.2.conv.bias")
    again = load_source(Source(unet(), source.checkpoint, min_loaded=0.4), 1, SIZE, whole=False)
    assert again.digest == loaded.digest  # though the head starts with other random values
    assert loaded.channels == 3
    assert "2 of the network's" in caplog.text
    assert "keep their initial values: model.2.conv.weight, model.2.conv.bias" in caplog.text


def test_options_of_the_adaptation_reach_the_surgery(tmp_path):
    trained = unet(classes=4, channels=2)
    content = {"state_dict": trained.state_dict(), "riskft": {"class_names": list("abcd"), "in_channels": 2}}
    path = saved(tmp_path / "best.ckpt", content)
    loaded = load_source(
        Source(unet(), path, head=["model.2.conv"], first_convolution="repeat", output=SigmoidOutput()), 4, SIZE
    )
    old, new = trained.state_dict()["model.0.conv.weight"], loaded.network.state_dict()["model.0.conv.weight"]
    torch.testing.assert_close(new, old.repeat(1, 2, 1, 1, 1) / 2)
    assert loaded.output == SigmoidOutput()
    with pytest.raises(InputError, match=r"model\.source\.head is \['nothing'\]"):
        load_source(Source(unet(), path, head=["nothing"]), 4, SIZE)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(InputError, match=f"model.source.min_loaded is {share}"):
        Source(unet(), min_loaded=share)


def test_without_a_network(tmp_path):
    with pytest.raises(InputError, match=r"model\.source\.network is not set\. Give it by class_path"):
        Source().architecture()
    path = saved(tmp_path / "net.pt", unet().state_dict())
    with pytest.raises(InputError, match=r"net\.pt: does not say what network it belongs to") as caught:
        load_source(Source(checkpoint=path), 1, SIZE)
    assert all(kind in str(caught.value) for kind in ("nnU-Net", "MONAI", "MeshNet"))


@pytest.mark.parametrize("key", ["model.0.conv.weight", "model.2.conv.bias", "model.0.adn.N.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, key, value):
    state = unet(norm="batch").state_dict()
    state[key].flatten()[0] = value
    with pytest.raises(InputError, match=r"net\.pt: holds NaN or infinite weights"):
        load_source(Source(unet(norm="batch"), saved(tmp_path / "net.pt", state)), 1, SIZE)


def test_no_checkpoint():
    with pytest.raises(InputError, match=r"model\.source\.checkpoint is not set"):
        load_source(Source(unet()), 1, SIZE)


def test_the_digest_is_that_of_the_weights(tmp_path):
    state = unet().state_dict()
    wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    changed = {**state, "model.2.conv.bias": state["model.2.conv.bias"] + 1}
    contents = enumerate((state, wrapped, changed))
    digests = [
        load_source(Source(unet(), saved(tmp_path / f"{n}.pt", content)), 2, SIZE).digest for n, content in contents
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_network_with_deep_supervision(tmp_path):
    def build():
        return nets.DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8], deep_supervision=True, deep_supr_num=1)

    trained = build()
    loaded = load_source(Source(build(), saved(tmp_path / "net.pt", trained.state_dict())), 1, (16, 16, 16))
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(outputs_of(loaded.network(image))[0], outputs_of(trained.eval()(image))[0])


# -- what of a checkpoint fits --------------------------------------------------------------------------------------


def checkpoint(state):
    return Checkpoint(Path("net.pt"), {"": dict(state)})


def test_fill_loads_everything_and_returns_the_rest():
    source, network = unet(), unet()
    state = {f"net.{key}": value for key, value in source.state_dict().items()}
    missing, unused = fill(network, checkpoint({**state, "net.aux.weight": torch.ones(1), "ema": torch.ones(2)}), SIZE)
    assert (missing, unused) == ((), ("aux.weight", "ema"))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in network.state_dict().items())


def refusal(network, state, **options):
    """Returns the message lines of a refused checkpoint, of which the network must not have taken anything."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        fill(network, checkpoint(state), SIZE, **options)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    lines = str(caught.value).splitlines()
    assert len(lines) <= 4
    assert "net.pt" in lines[0]
    return lines


def test_missing_keys_with_the_nearest_and_wrong_shapes():
    state = unet(classes=2).state_dict()
    state["model.0.conv.weights"] = state.pop("model.0.conv.weight")
    title, *problems = refusal(unet(classes=3), state)
    assert title == (
        f"net.pt: does not fit model.source.network (UNet): 3 of {len(unet().state_dict())} entries, and the risk map "
        "needs all. Give the network the class and options that it was trained with."
    )
    assert problems == [
        "  - 'model.0.conv.weight' is missing; the nearest in the file is 'model.0.conv.weights'",
        "  - 'model.2.conv.weight' has shape (12, 2, 3, 3, 3) in the file, the network expects (12, 3, 3, 3, 3)",
        "  - and 1 more",
    ]


def test_another_network():
    network = unet()
    lines = refusal(network, {"other": torch.ones(1)}, min_loaded=0.5)
    assert "it fills 0 % of the parameters, and model.source.min_loaded is 0.5" in lines[0]
    assert lines[3] == f"  - and {len(network.state_dict()) - 2} more"
    assert "nearest" not in lines[1]


@pytest.mark.parametrize("options", [{}, {"num_res_units": 2, "norm": "batch"}])
def test_only_the_number_of_classes_differs(options):
    title, problem = refusal(unet(classes=2, **options), unet(classes=5, **options).state_dict())
    assert title == "net.pt: fits model.source.network (UNet) except for the numbers of channels:"
    assert "the file's head has 5 output channels, the network 2: set out_channels / num_classes to 5" in problem
    assert problem.startswith("  - 'model.2.0.conv.weight'" if options else "  - 'model.2.conv.weight'")


def test_classes_and_channels_differ():
    _, classes, channels = refusal(unet(classes=2, channels=1), unet(classes=3, channels=4).state_dict())
    assert "set out_channels / num_classes to 3" in classes
    assert "'model.0.conv.weight': the file takes 4 input channels, the network 1: set in_channels to 4" in channels


def test_other_inner_widths_are_not_taken_for_another_number_of_classes():
    wider = nets.UNet(3, 1, 3, channels=(6, 8), strides=(2,)).state_dict()
    title, *_ = refusal(unet(), wider)
    assert "does not fit model.source.network (UNet)" in title


def test_a_part_is_enough_for_plain_fine_tuning():
    """Head of 12 * 3 * 27 + 3 = 975 elements among 4 * 27 + 4 + 8 * 4 * 27 + 8 + 975, with two PReLUs of 1."""
    trained, network = unet(classes=5), unet(classes=3)
    total = sum(parameter.numel() for parameter in network.parameters())
    share = 1 - 975 / total
    before = network.state_dict()["model.2.conv.weight"].clone()
    missing, _ = fill(network, checkpoint(trained.state_dict()), SIZE, min_loaded=share - 1e-6)
    assert missing == ("model.2.conv.weight", "model.2.conv.bias")
    assert torch.equal(network.state_dict()["model.2.conv.weight"], before)
    assert torch.equal(network.state_dict()["model.0.conv.weight"], trained.state_dict()["model.0.conv.weight"])
    assert "fits model.source.network" in refusal(unet(classes=3), trained.state_dict(), min_loaded=share + 1e-6)[0]
