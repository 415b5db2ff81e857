"""Finding a network's weights in files that hold them under other names, more than once, and among other things."""

import logging

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint
from riskft.source.convert import convert
from riskft.source.copies import choose_copy, states_in
from riskft.source.load import load_source
from riskft.source.source import Source

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}
MOMENTS = {"state": {0: {"exp_avg": torch.ones(2, 3), "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]}


def named(prefix, offset=0.0):
    return {f"{prefix}{key}": value + offset for key, value in STATE.items()}


def chosen(content, wanted=None, own=STATE):
    return choose_copy(states_in(content), own, wanted)


@pytest.mark.parametrize("prefix", ["module.", "net.", "_orig_mod.", "network.", "backbone.", "my_model.encoder_net."])
@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod.", "model.network."])
def test_any_prefix_is_taken_off(prefix, outer):
    found = chosen(named(outer + prefix))
    assert found.state.keys() == STATE.keys()
    assert all(torch.equal(found.state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.module.", "network._orig_mod."])
def test_own_keys_may_start_with_a_prefix(prefix):
    own = nets.UNet(3, 1, 2, (4, 8), (2,)).state_dict()
    assert all(key.startswith("model.") for key in own)
    assert chosen({f"{prefix}{key}": value for key, value in own.items()}, own=own).state.keys() == own.keys()


def test_wrappers_of_inner_modules_are_taken_off():
    state = {"conv._orig_mod.weight": STATE["conv.weight"], "_fsdp_wrapped_module.conv.bias": STATE["conv.bias"]}
    assert chosen(state).state.keys() == STATE.keys()


def test_entries_beside_the_prefix_keep_their_names():
    found = chosen(named("net.") | {"loss.weight": torch.ones(1)})
    assert found.state.keys() == {*STATE, "loss.weight"}


def test_a_part_of_the_names_without_the_prefix_does_not_win():
    found = chosen({"conv.bias": torch.zeros(2)} | named("model."))
    assert found.name == "model"
    assert found.state["conv.bias"].tolist() == [1, -1]


# what a file holds, which copy is taken, and which others the log names
COPIES = [
    ({"state_dict": named("net_ema.", 1) | named("net.")}, "state_dict.net", ["state_dict.net_ema"]),
    (named("student.") | named("teacher.", 1), "student", ["teacher"]),
    ({"student": named(""), "teacher": named("", 1), "epoch": 3}, "student", ["teacher"]),
    ({"model_ema": named("", 1), "optimizer": MOMENTS, "model": named("")}, "model", ["model_ema"]),
    ({"callbacks": {"EMA": {"weights": named("", 1)}}, "state_dict": named("network.")}, "state_dict.network",
     ["callbacks.EMA.weights"]),
    ({"module": named("module."), "optimizer": MOMENTS}, "module.module", []),
    # the moving average lacks an entry, or has one in another shape
    ({"model": named(""), "model_ema": {"conv.weight": torch.ones(2, 3)}}, "model", []),
    ({"model": {**named("", 0), "conv.bias": torch.ones(3)}, "model_ema": named("")}, "model_ema", []),
]  # fmt: skip


@pytest.mark.parametrize(("content", "name", "others"), COPIES)
def test_the_copy_that_fits_best_is_taken_and_the_others_are_named(content, name, others, caplog):
    caplog.set_level(logging.INFO)
    found = chosen(content)
    assert found.name == name
    assert all(torch.equal(found.state[key], STATE[key]) for key in STATE)
    assert len(caplog.messages) == bool(others)
    for other in others:
        assert f"Taken: {name}. Also there: {other}. To take another, set model.source.weights" in caplog.messages[0]


@pytest.mark.parametrize("wanted", ["state_dict.net_ema", "net_ema", "net_ema."])
def test_another_copy_by_its_name(wanted, caplog):
    caplog.set_level(logging.INFO)
    found = chosen({"state_dict": named("net_ema.", 1) | named("net.")}, wanted)
    assert found.state["conv.bias"].tolist() == [2, 0]
    assert not caplog.messages


def test_a_name_under_which_there_is_nothing():
    with pytest.raises(InputError, match=r"weights is 'ema', .* under: state_dict\.net, state_dict\.net_ema\.$"):
        chosen({"state_dict": named("net_ema.", 1) | named("net.")}, "ema")


def test_a_dictionary_that_holds_itself_ends():
    content = {"model": named("")}
    content["self"] = content
    assert list(states_in(content)) == ["model"]


def test_a_source_takes_the_copy_that_it_is_told(tmp_path):
    def unet(seed):
        torch.manual_seed(seed)
        return nets.UNet(3, 1, 2, (4, 8), (2,)).state_dict()

    torch.save({"model": unet(0), "model_ema": unet(1), "optimizer": MOMENTS}, tmp_path / "net.pt")
    network = nets.UNet(3, 1, 2, (4, 8), (2,))
    for weights, seed in ((None, 0), ("model_ema", 1)):
        loaded = load_source(Source(network, str(tmp_path / "net.pt"), weights=weights), 1, (8, 8, 8))
        assert all(torch.equal(value, unet(seed)[key]) for key, value in loaded.network.state_dict().items())


def test_convert_keeps_all_copies(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    torch.save({"student": named(""), "teacher": named("", 1), "optimizer": MOMENTS}, tmp_path / "old.pt")
    assert convert(tmp_path / "old.pt", tmp_path / "new.safetensors") == 4
    assert "The others are: teacher." in caplog.text
    states = read_checkpoint(tmp_path / "new.safetensors").states
    assert choose_copy(states, STATE, None).state["conv.bias"].tolist() == [1, -1]
    assert choose_copy(states, STATE, "teacher").state["conv.bias"].tolist() == [2, 0]
