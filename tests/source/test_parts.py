"""Checkpoints in several files with an index."""

import json

import pytest
import torch
from monai.networks import nets

from riskft.errors import InputError
from riskft.source.checkpoint import read_checkpoint

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
    with pytest.raises(InputError, match="is no index of a checkpoint in parts"):
        read_checkpoint(tmp_path / "x.index.json")
    (tmp_path / "plans.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"plans\.json: is a JSON file and no checkpoint"):
        read_checkpoint(tmp_path / "plans.json")
