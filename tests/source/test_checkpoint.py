"""Reading checkpoints: every common form, nothing broken, nothing run."""

import pickle
from pathlib import Path

import pytest
import torch
from monai.networks import nets
from torch import nn

from riskft.errors import InputError
from riskft.source.checkpoint import aligned, read_checkpoint, state_digest

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


@pytest.mark.parametrize("prefix", ["module.", "net.", "_orig_mod.", "network.", "model."])
@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod.", "network.", "model.network."])
def test_prefixes_are_stripped(prefix, outer):
    state = {f"{outer}{prefix}{key}": value for key, value in STATE.items()}
    found = aligned(state, STATE.keys())
    assert found.keys() == STATE.keys()
    assert all(found[key] is STATE[key] for key in STATE)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.module.", "network._orig_mod."])
def test_own_keys_may_start_with_a_prefix(prefix):
    own = nets.UNet(3, 1, 2, (4, 8), (2,)).state_dict()
    assert all(key.startswith("model.") for key in own)
    assert aligned({f"{prefix}{key}": value for key, value in own.items()}, own.keys()).keys() == own.keys()


def test_what_does_not_share_the_prefix_stays():
    state = {**{f"net.{key}": value for key, value in STATE.items()}, "loss.weight": torch.ones(1)}
    assert aligned(state, STATE.keys()).keys() == {*STATE, "loss.weight"}


class Payload:
    """Unpickled, it writes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.write_text, (self.marker, "the payload ran"))


@pytest.mark.parametrize("kind", ["plain", "legacy", "raw"])
def test_a_payload_does_not_run(tmp_path, kind):
    marker, path = tmp_path / "marker", tmp_path / "net.pt"
    content = {"state_dict": STATE, "extra": Payload(marker)}
    if kind == "raw":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "plain")
    with pytest.raises(InputError, match=r"loading them could run code.*torch\.save\(network\.state_dict\(\), file\)"):
        read_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if kind != "raw" else pickle.loads(path.read_bytes())
    assert marker.read_text() == "the payload ran"  # so it was a real one


def test_a_pickled_module_is_refused(tmp_path):
    with pytest.raises(InputError, match="Save its state dict alone"):
        read_checkpoint(saved(tmp_path / "net.pt", nn.Conv3d(1, 2, 1)))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pt: there is no such checkpoint"):
        read_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(tmp_path, kept, zipped):
    path = tmp_path / "net.pt"
    torch.save({"state_dict": {"w": torch.randn(100, 10)}}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(InputError, match=r"net\.pt: (cannot be read as a checkpoint|holds Python objects)"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"<html>login</html>" * 50, b"\x80\x02", b"PK\x03\x04" + bytes(500), bytes(2000)])
def test_no_checkpoint_at_all(tmp_path, content):
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"net\.pt: "):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [torch.ones(3), [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_no_state_dict(tmp_path, content):
    with pytest.raises(InputError, match="no state dict found; looked at the top level and under state_dict, "):
        read_checkpoint(saved(tmp_path / "net.pt", content))


def test_state_digest():
    changed = {**STATE, "conv.bias": torch.tensor([1.0, -1.0 + 1e-6])}
    renamed = {"conv.weight": STATE["conv.weight"], "conv.offset": STATE["conv.bias"]}
    reshaped = {**STATE, "conv.weight": STATE["conv.weight"].reshape(3, 2)}
    digests = {state_digest(state) for state in (STATE, changed, renamed, reshaped)}
    assert len(digests) == 4
    assert state_digest(dict(reversed(STATE.items()))) == state_digest(STATE)
    assert state_digest({"n": torch.tensor(3), "flag": torch.tensor([True])})
