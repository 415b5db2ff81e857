"""Nothing broken is taken for a checkpoint, and nothing that a file holds is run."""

import argparse
import json
import pickle
import zipfile
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from monai.networks import nets
from nnunet_folder import plans, write_folder
from payload import Payload, assert_real, write_bomb
from torch import nn

from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint
from riskft.source.checkpoint_file import UntrustedError, load_content

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "last.ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_payload_does_not_run(tmp_path, name, zipped):
    marker = tmp_path / "marker"
    path = write_bomb(tmp_path / name, marker, STATE, zipped=zipped)
    with pytest.raises(UntrustedError) as caught:
        read_checkpoint(path)
    # torch does not list the names in files of the older format
    named = " (" if zipped else ","
    assert caught.value.title.startswith(f"{path}: holds Python objects besides tensors{named}")
    new = path.with_suffix(".safetensors")
    assert caught.value.problems[0].startswith(
        f"If you trust it: riskft convert {path} {new} --trust-pickle true (which runs that code)"
    )
    assert len(str(caught.value).splitlines()) == 2
    assert_real(path, marker)


def test_a_payload_in_a_pickle_that_torch_did_not_write(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "net.pt"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"state_dict": STATE, "extra": Payload(marker)}, protocol))
        with pytest.raises(InputError, match=r"net\.pt: "):
            read_checkpoint(path)
        assert not marker.exists()


def test_a_payload_in_place_of_a_file_s_own_objects(tmp_path):
    """The names under which numpy's values are let through lead to nothing that does anything."""

    class Call:
        def __reduce__(self):
            return (np.dtype, ("O",))

    path = tmp_path / "net.pt"
    torch.save({"state_dict": STATE, "extra": [Call(), np.dtype("V8"), np.array([object()], dtype=object)[:0]]}, path)
    content = load_content(path)
    assert content["state_dict"].keys() == STATE.keys()
    assert {type(item).__name__ for item in content["extra"]} == {"_Ignored"}
    # a callable that is let through is called with the stand-in only
    torch.save({"state_dict": STATE, "extra": np.array([Payload(tmp_path / "marker")], dtype=object)}, path)
    with pytest.raises(UntrustedError):
        load_content(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_s_values_beside_tensors(tmp_path, zipped):
    """As in nnU-Net's checkpoint_final.pth."""
    content = {
        "network_weights": OrderedDict(STATE),
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "lrs": [0.01], "counts": np.arange(3)},
        "_best_ema": np.float64(0.75),
        "flags": (np.bool_(True), np.int64(3)),
        "current_epoch": 1,
        "init_args": {"plans": {"plans_name": "nnUNetPlans"}, "device": torch.device("cpu")},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    path = tmp_path / "checkpoint_final.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    assert read_checkpoint(path).state.keys() == STATE.keys()
    assert set(torch.serialization.get_safe_globals()) == allowed  # for this one file only


def test_the_names_of_both_numpys(tmp_path):
    """A file of numpy 1 names numpy.core, one of numpy 2 numpy._core."""
    path, other = tmp_path / "net.pt", tmp_path / "other.pt"
    torch.save({"state_dict": STATE, "best": np.float64(0.75)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as new:
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith("data.pkl"):
                here, there = (
                    (b"numpy._core", b"numpy.core") if b"numpy._core" in data else (b"numpy.core", b"numpy._core")
                )
                assert here in data
                data = data.replace(here, there)
            new.writestr(item.filename, data)
    assert read_checkpoint(path).state.keys() == read_checkpoint(other).state.keys() == STATE.keys()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (nn.Conv3d(1, 2, 1), "torch.nn.modules.conv.Conv3d"),
        (
            [argparse.Namespace(), Fraction(1, 2), PurePosixPath("a"), Decimal(1), np.float64(1)],
            r"argparse.Namespace, decimal.Decimal, fractions.Fraction, and 1 more",
        ),
    ],
)
def test_the_message_names_what_the_file_holds(tmp_path, extra, named):
    torch.save({"state_dict": STATE, "extra": extra}, tmp_path / "net.pt")
    with pytest.raises(UntrustedError, match=rf"besides tensors \({named}\)"):
        read_checkpoint(tmp_path / "net.pt")


def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.script(nn.Conv3d(1, 2, 1)).save(str(tmp_path / "model.ts"))
    with pytest.raises(UntrustedError, match=r"model\.ts: holds a TorchScript program"):
        read_checkpoint(tmp_path / "model.ts")


@pytest.mark.parametrize("kept", [1, 10, 100, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file(tmp_path, kept, zipped):
    path = tmp_path / "net.pt"
    torch.save({"state_dict": {"w": torch.randn(100, 10)}}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(InputError, match=r"net\.pt: cannot be read as a checkpoint .*Is the file complete\?"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\n<!DOCTYPE html><html>login</html>", "is a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\x80\x02", "cannot be read as a checkpoint"),
        (b"PK\x03\x04" + bytes(500), "its end is missing or damaged; it has 504 bytes"),
        (bytes(2000), "cannot be read as a checkpoint"),
        (b"hello world" * 30, "cannot be read as a checkpoint"),
    ],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_what_is_no_checkpoint(tmp_path, content, said, ending):
    path = tmp_path / f"net.{ending}"
    path.write_bytes(content)
    if ending == "safetensors" and said.startswith("its end"):
        said = "its end is missing"
    with pytest.raises(InputError, match=rf"net\.{ending}: .*{said}") as caught:
        read_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1


def test_another_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("weights/model.pt", b"")
    with pytest.raises(InputError, match=r"zip archive that torch\.save did not write: it holds weights/model\.pt"):
        read_checkpoint(tmp_path / "net.pt")


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    path = tmp_path / "net.pt"
    torch.save(STATE, path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(InputError, match=r"net\.pt: cannot be opened \(Permission denied\)"):
        load_content(path)


def test_a_payload_in_an_nnunet_folder_does_not_run(tmp_path):
    folder, marker = write_folder(tmp_path, plans()), tmp_path / "marker"
    path = write_bomb(folder / "fold_0/checkpoint_final.pth", marker, STATE)
    with pytest.raises(UntrustedError, match=r"fold_0/checkpoint_final\.pth: holds Python objects"):
        read_checkpoint(folder)
    assert_real(path, marker)


# -- sharded checkpoints ------------------------------------------------------------------------------------------

STATE = nets.UNet(3, 1, 2, (4, 8), (2,)).state_dict()


def write(folder, kind):
    """Writes a checkpoint in two parts, as huggingface_hub does; returns its index."""
    if kind == "safetensors":
        save = pytest.importorskip("safetensors.torch").save_file
        name = "model-0000{}-of-00002.safetensors"
    else:
        save, name = torch.save, "pytorch_model-0000{}-of-00002.bin"
    where = {key: name.format(1 + number % 2) for number, key in enumerate(STATE)}
    for part in set(where.values()):
        save({key: STATE[key].contiguous() for key in where if where[key] == part}, folder / part)
    index = folder / f"model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_parts_are_put_together(kind, tmp_path):
    index = write(tmp_path, kind)
    for path in (index, tmp_path):
        state = read_checkpoint(path).state
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_a_part_that_is_missing_is_named(tmp_path):
    index = write(tmp_path, "bin")
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(InputError, match=r"names 2 files, of which 1 are missing: pytorch_model-00002-of-00002\.bin"):
        read_checkpoint(index)


def test_other_json_files_are_refused(tmp_path):
    (tmp_path / "x.index.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="is not the index of a sharded checkpoint"):
        read_checkpoint(tmp_path / "x.index.json")
    (tmp_path / "plans.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"plans\.json: is a JSON file, not a checkpoint"):
        read_checkpoint(tmp_path / "plans.json")
