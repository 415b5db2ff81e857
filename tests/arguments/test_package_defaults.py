"""What a model says of itself, as the first config of a command."""

import json

import pytest
import torch
from safetensors.torch import save_file

from riskft.arguments.given import options_of
from riskft.arguments.package_defaults import package_defaults
from riskft.build import Command
from riskft.errors import UsageError
from riskft.source.packages.meshnet import MeshNet


def test_what_the_model_implies_comes_first(tmp_path):
    layers = [
        {"in_channels": 1, "out_channels": 2, "kernel_size": 1, "padding": 0, "stride": 1, "dilation": 1},
    ]
    (tmp_path / "m.json").write_text(json.dumps({"layers": layers}))
    save_file(MeshNet(layers).state_dict(), tmp_path / "m.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    given = ["fit", "--data.patch_size", "[8, 8, 8]", "--model.source.checkpoint", str(tmp_path / "m.json")]
    option, text = package_defaults(options_of(given))
    assert option == "--config"
    assert json.loads(text)["model"]["source"]["network"]["init_args"]["layers"] == layers
    assert package_defaults(options_of(["fit", "--model.source.checkpoint", str(tmp_path / "plain.pt")])) == []
    assert package_defaults([]) == []


def test_a_list_and_a_mapping_at_the_same_place_are_for_the_parser_to_refuse():
    given = [
        "fit",
        "--config",
        "{data: {split: [1]}}",
        "--config",
        "{data: {split: {class_path: riskft.FractionSplit}}}",
    ]
    with pytest.raises(UsageError, match=r'Parser key "data\.split"'):
        Command([*given, "--model.source.checkpoint", "x.pt"])
