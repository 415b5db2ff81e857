"""Reading checkpoints: every common form, nothing broken, nothing run."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from riskft.errors import InputError
from riskft.source import checkpoint as module
from riskft.source.checkpoint import read_checkpoint, state_digest, with_kernel_axes
from riskft.source.packages import Package

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}


def saved(path: Path, content) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"network_weights": STATE, "current_epoch": 7},
        {"model_state_dict": STATE, "optimizer": {"state": {}, "lr": 0.1}},
        {"model": {"state_dict": STATE}},
        {"net": STATE, "step": 3},
        {**STATE, "version": 2},
    ],
)
def test_finds_the_state(tmp_path, content):
    checkpoint = read_checkpoint(saved(tmp_path / "net.pt", content))
    assert checkpoint.state.keys() == STATE.keys()
    assert all(torch.equal(checkpoint.state[key], STATE[key]) for key in STATE)
    assert checkpoint.class_names is None
    assert checkpoint.in_channels is None


def test_reads_what_riskft_wrote(tmp_path):
    content = {"state_dict": STATE, "riskft": {"class_names": ["background", "core"], "in_channels": 2}}
    checkpoint = read_checkpoint(saved(tmp_path / "net.ckpt", content))
    assert checkpoint.class_names == ("background", "core")
    assert checkpoint.in_channels == 2


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pt: there is no such checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_no_state_dict(tmp_path, content):
    with pytest.raises(InputError, match="no state dict found: none of its dictionaries holds tensors by name"):
        read_checkpoint(saved(tmp_path / "net.pt", content))


def test_state_digest():
    changed = {**STATE, "conv.bias": torch.tensor([1.0, -1.0 + 1e-6])}
    renamed = {"conv.weight": STATE["conv.weight"], "conv.offset": STATE["conv.bias"]}
    reshaped = {**STATE, "conv.weight": STATE["conv.weight"].reshape(3, 2)}
    digests = {state_digest(state) for state in (STATE, changed, renamed, reshaped)}
    assert len(digests) == 4
    assert state_digest(dict(reversed(STATE.items()))) == state_digest(STATE)
    assert state_digest({"n": torch.tensor(3), "flag": torch.tensor([True])})


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    read = read_checkpoint(tmp_path / "net.safetensors")
    assert read.state.keys() == STATE.keys()
    assert all(torch.equal(read.state[key], STATE[key]) for key in STATE)
    assert (read.class_names, read.in_channels) == (None, None)


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    save_file(STATE, tmp_path / "net.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InputError, match=r"net\.safetensors: .*pip install 'riskft\[safetensors\]'"):
        read_checkpoint(tmp_path / "net.safetensors")


def test_kernels_are_turned_by_hand():
    kernel = torch.arange(2 * 1 * 2 * 3 * 4.0).reshape(2, 1, 2, 3, 4)  # z, y, x
    bias = torch.arange(2.0)
    turned = with_kernel_axes({"w": kernel, "b": bias}, (2, 1, 0))
    assert turned["w"].shape == (2, 1, 4, 3, 2)
    # at (x, y, z) = (3, 1, 0) of the second kernel: 24 for the first one, then z 0, y 1 and x 3
    assert turned["w"][1, 0, 3, 1, 0] == 24 + 0 * 12 + 1 * 4 + 3
    assert turned["b"] is bias
    # a permutation that is not its own inverse: new axis 0 is old axis 1, 1 is old 2, 2 is old 0
    assert with_kernel_axes({"w": kernel}, (1, 2, 0))["w"].shape == (2, 1, 3, 4, 2)


def test_a_model_that_describes_itself(tmp_path, monkeypatch):
    weights = saved(tmp_path / "weights.pt", {"network_weights": {"conv.weight": torch.rand(2, 1, 3, 1, 2)}})
    package = Package(weights, class_names=("background", "a"), in_channels=4, kernel_axes=(2, 1, 0))
    monkeypatch.setattr(module, "find_package", lambda path: package if path == tmp_path else None)
    read = read_checkpoint(tmp_path)
    assert (read.path, read.class_names, read.in_channels) == (weights, ("background", "a"), 4)
    assert read.state["conv.weight"].shape == (2, 1, 2, 1, 3)


def test_a_folder_of_no_known_kind(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"is not a kind of folder.*It holds: notes\.txt, runs/\.") as caught:
        read_checkpoint(tmp_path)
    assert all(kind in str(caught.value) for kind in ("nnU-Net", "MONAI", "MeshNet"))


@pytest.mark.parametrize("own", ["text", {"class_names": "abc", "in_channels": "2"}, {"class_names": []}])
def test_an_entry_that_riskft_did_not_write_says_nothing(tmp_path, own):
    read = read_checkpoint(saved(tmp_path / "net.pt", {"state_dict": STATE, "riskft": own}))
    assert (read.class_names, read.in_channels) == (None, None)
