"""Taking the weights out of a file that must be trusted."""

import argparse
import subprocess
import sys

import pytest
import torch
from monai.networks import nets
from payload import Payload, write_bomb
from safetensors import safe_open
from torch import nn

from riskft.cli import main
from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint
from riskft.source.checkpoint_file import UntrustedError
from riskft.source.convert import convert

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}


def saved(path, content):
    torch.save(content, path)
    return path


def assert_same(path, state):
    read = read_checkpoint(path).state
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("zipped", [True, False])
def test_only_a_trusted_file_is_run(tmp_path, ending, zipped):
    marker, new = tmp_path / "marker", tmp_path / "out" / f"new{ending}"
    old = write_bomb(tmp_path / "old.pt", marker, STATE, zipped=zipped)
    with pytest.raises(UntrustedError, match="--trust-pickle true"):
        convert(old, new)
    assert not marker.exists()
    assert not new.exists()
    assert convert(old, new, trust_pickle=True) == 2
    assert marker.exists()
    marker.unlink()
    assert_same(new, STATE)
    assert not marker.exists()
    assert [path.name for path in new.parent.iterdir()] == [new.name]


def test_a_harmless_file_needs_no_trust(tmp_path):
    convert(saved(tmp_path / "old.pt", {"model": STATE, "epoch": 3}), tmp_path / "new.safetensors")
    assert_same(tmp_path / "new.safetensors", STATE)


@pytest.mark.parametrize("wrap", [lambda network: network, lambda network: {"model": network, "epoch": 3}])
def test_modules_pickled_whole(tmp_path, wrap):
    network = nets.UNet(3, 1, 2, (4, 8), (2,))
    old = saved(tmp_path / "old.pt", wrap(network))
    convert(old, tmp_path / "new.safetensors", trust_pickle=True)
    assert_same(tmp_path / "new.safetensors", network.state_dict())


def test_torchscript(tmp_path):
    network = nn.Conv3d(1, 2, 1)
    torch.jit.script(network).save(str(tmp_path / "model.ts"))
    convert(tmp_path / "model.ts", tmp_path / "new.pt", trust_pickle=True)
    assert_same(tmp_path / "new.pt", network.state_dict())


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_what_riskft_wrote_of_itself_is_kept(tmp_path, ending):
    content = {"state_dict": STATE, "riskft": {"class_names": ["background", "core"], "in_channels": 2}}
    old = saved(tmp_path / "old.ckpt", {**content, "hyper_parameters": argparse.Namespace(lr=1)})
    convert(old, tmp_path / f"new{ending}", trust_pickle=True)
    read = read_checkpoint(tmp_path / f"new{ending}")
    assert (read.class_names, read.in_channels) == (("background", "core"), 2)


def test_shared_and_partial_storage(tmp_path):
    whole = torch.arange(1000.0)
    state = {"a": whole[:4].reshape(2, 2).T, "b": whole[:4].reshape(2, 2), "half": torch.ones(2, dtype=torch.bfloat16)}
    old = saved(tmp_path / "old.pt", state)
    for name in ("new.safetensors", "new.pt"):
        convert(old, tmp_path / name)
        assert_same(tmp_path / name, state)
        assert (tmp_path / name).stat().st_size < 3000


def test_an_existing_file_is_kept_unless_asked(tmp_path):
    old, new = saved(tmp_path / "old.pt", STATE), tmp_path / "new.pt"
    new.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"new\.pt: exists\. .*--overwrite true"):
        convert(old, new)
    assert new.read_bytes() == b"precious"
    convert(old, new, overwrite=True)
    assert_same(new, STATE)


def test_in_place(tmp_path):
    path = saved(tmp_path / "net.pt", {"state_dict": STATE, "options": argparse.Namespace()})
    convert(path, path, trust_pickle=True, overwrite=True)
    assert_same(path, STATE)


class Broken:
    """Cannot be unpickled."""

    def __reduce__(self):
        return (int, ("no number",))


@pytest.mark.parametrize(
    ("content", "new", "said"),
    [
        (STATE, "new.onnx", r"new\.onnx: has the ending '\.onnx', expected one of \.safetensors, \.pt, \.pth"),
        ({"epoch": 3}, "new.pt", r"old\.pt: no state dict found"),
        ({"w": STATE, "x": Broken()}, "new.pt", r"old\.pt: loading it failed \(ValueError: .*Install the packages"),
    ],
)
def test_what_cannot_be_converted(tmp_path, content, new, said):
    old = saved(tmp_path / "old.pt", content)
    with pytest.raises(InputError, match=said):
        convert(old, tmp_path / new, trust_pickle=True)
    assert not (tmp_path / new).exists()


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"absent\.pt: is absent, expected the file of weights"):
        convert(tmp_path / "absent.pt", tmp_path / "new.pt")
    with pytest.raises(InputError, match="is a folder, expected the file of weights"):
        convert(tmp_path, tmp_path / "new.pt")


def test_without_safetensors_nothing_is_run(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    old = saved(tmp_path / "old.pt", {"state_dict": STATE, "extra": Payload(marker)})
    monkeypatch.setattr("riskft.source.convert.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"writing it needs the package safetensors .* a name that ends in \.pt"):
        convert(old, tmp_path / "new.safetensors", trust_pickle=True)
    assert not marker.exists()


def test_the_command(tmp_path, capsys):
    marker, new = tmp_path / "marker", tmp_path / "new.safetensors"
    old = write_bomb(tmp_path / "old.pt", marker, STATE)
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(old), str(new)])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert f"riskft: {old}: holds Python objects" in error
    assert "--trust-pickle true" in error
    assert not marker.exists()
    main(["convert", str(old), str(new), "--trust-pickle", "true"])
    assert capsys.readouterr().out.strip() == f"{new}: 2 tensors"
    with safe_open(new, framework="pt") as file:
        assert set(file.keys()) == set(STATE)
    with pytest.raises(SystemExit):
        main(["convert", str(old), str(new), "--trust-pickle", "true"])
    main(["convert", str(old), str(new), "--trust-pickle", "true", "--overwrite", "true"])


def test_classes_of_the_training_script_are_left_out(tmp_path, caplog):
    """As torch.save writes them where the script that is run defines a class: nobody can import ``__main__.Meter``."""
    script = tmp_path / "train.py"
    script.write_text(
        "import collections, sys, torch\n"
        "class Meter:\n"
        "    def __init__(self): self.values = [1.0]\n"
        "class Log(collections.OrderedDict): pass\n"
        "log = Log(loss=Meter())\n"
        "torch.save({'model_state_dict': {'a': torch.arange(3.0)}, 'meter': Meter(), 'log': log}, sys.argv[1])\n"
        "torch.save({'model_state_dict': {'a': torch.arange(3.0)}, 'meter': Meter(), 'log': log}, sys.argv[2],\n"
        "           _use_new_zipfile_serialization=False)\n"
    )
    old = [tmp_path / "new_format.pth", tmp_path / "legacy.pth"]
    subprocess.run([sys.executable, str(script), *map(str, old)], check=True)
    for file in old:
        with pytest.raises(UntrustedError):
            convert(file, file.with_suffix(".pt"))
        with caplog.at_level("INFO", logger="riskft"):
            assert convert(file, file.with_suffix(".pt"), trust_pickle=True) == 1
        assert "left out what cannot be imported here: __main__.Log, __main__.Meter" in caplog.text
        assert read_checkpoint(file.with_suffix(".pt")).state["a"].tolist() == [0, 1, 2]
