"""Where the command line says the source's checkpoint is, before it is parsed as a whole."""

import json

import pytest
import torch
from safetensors.torch import save_file

from riskft.arguments.package_defaults import given_checkpoint, with_package_defaults
from riskft.source.packages.meshnet import MeshNet


@pytest.fixture
def config(tmp_path):
    def write(text, name="a.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], None),
        (["--model.source.checkpoint", "x.pt"], "x.pt"),
        (["--model.source.checkpoint=x.pt"], "x.pt"),
        (["--model.source.checkpoint=x.pt", "--model.source.checkpoint", "y.pt"], "y.pt"),
        (["--model.source.checkpoint", "null"], None),
        (["--model.source", "{checkpoint: x.pt}"], "x.pt"),
        (["--model", '{"source": {"checkpoint": "x.pt"}}'], "x.pt"),
        (["--config", "{model: {source: {checkpoint: x.pt}}}"], "x.pt"),
        (["--config", "missing.yaml"], None),
        (["--config", "{model: [broken"], None),
        (["--config", "{root: /a, model: {source: {checkpoint: '${root}/x.pt'}}}"], "/a/x.pt"),
        (["--config", "{model: {source: {checkpoint: '${nowhere}'}}}"], None),
        (["--model.source.checkpoint"], None),
    ],
)
def test_the_last_one_given_counts(options, found):
    assert given_checkpoint(["fit", *options]) == found


def test_configs_and_options_in_their_order(config):
    first = config("model: {source: {checkpoint: first.pt, head: [a]}}")
    second = config("model: {source: {checkpoint: second.pt}}", "b.yaml")
    third = config("model: {source: {head: [b]}}", "c.yaml")
    assert given_checkpoint(["fit", "--config", first, "--config", second, f"--config={third}"]) == "second.pt"
    assert given_checkpoint(["fit", "--model.source.checkpoint", "own.pt", "--config", second]) == "second.pt"
    assert given_checkpoint(["fit", "--config", second, "--model.source.checkpoint", "own.pt"]) == "own.pt"


def test_what_the_model_implies_comes_first(tmp_path):
    layers = [
        {"in_channels": 1, "out_channels": 2, "kernel_size": 1, "padding": 0, "stride": 1, "dilation": 1},
    ]
    (tmp_path / "m.json").write_text(json.dumps({"layers": layers}))
    save_file(MeshNet(layers).state_dict(), tmp_path / "m.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain.pt")
    given = ["fit", "--data.patch_size", "[8, 8, 8]", "--model.source.checkpoint", str(tmp_path / "m.json")]
    command, option, text, *rest = with_package_defaults(given)
    assert [command, option, *rest] == ["fit", "--config", *given[1:]]
    assert json.loads(text)["model"]["source"]["network"]["init_args"]["layers"] == layers
    plain = ["fit", "--model.source.checkpoint", str(tmp_path / "plain.pt")]
    assert with_package_defaults(plain) == plain
    assert with_package_defaults([]) == []
